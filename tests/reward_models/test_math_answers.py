"""The math grader against people: a hand-written table, labelled solutions of real models, and hostile answers."""

import json
import random
import resource
import time
from fractions import Fraction
from pathlib import Path

import pytest
from math_table import ADVERSARIAL, EXTRACTION, LATEX, NUMBERS, PERCENT_AND_UNITS, POLICY, RELATIONS, TABLE

from reward_models.base import Unscored
from reward_models.math_answers import extract_answer, is_match, math_answer
from reward_models.math_compare import decide
from reward_models.math_workers import shared_workers

GSM8K = Path(__file__).parents[2] / "../shared/data/gsm8k"
needs_gsm8k = pytest.mark.skipif(not GSM8K.exists(), reason="GSM8K is not beside the repository")


@pytest.mark.parametrize(
    "cases",
    [NUMBERS, PERCENT_AND_UNITS, RELATIONS, EXTRACTION, LATEX, ADVERSARIAL, POLICY],
    ids=["numbers", "percent_and_units", "relations", "extraction", "latex", "adversarial", "policy"],
)
def test_every_verdict_of_the_table(cases):
    wrong = [(gold, answer, verdict) for gold, answer, verdict in cases if is_match(answer, gold) is not verdict]
    assert wrong == []


def test_table_is_large_and_has_both_verdicts():
    assert len(TABLE) >= 300
    assert len(set(TABLE)) == len(TABLE)
    assert sum(verdict for *_, verdict in TABLE) >= 150
    assert sum(not verdict for *_, verdict in TABLE) >= 100


def test_a_gold_answer_matches_itself_boxed_and_in_a_sentence():
    golds = {gold for gold, _, _ in TABLE}
    assert [g for g in golds if not is_match(f"\\boxed{{{g}}}", g)] == []
    assert [g for g in golds if not is_match(f"We conclude.\n#### {g}", g)] == []


@needs_gsm8k
def test_labelled_solutions_of_four_systems():
    """2,640 solutions of GSM8K test problems, each labelled right or wrong by the data set's authors."""
    rows = [json.loads(line) for line in (GSM8K / "example_model_solutions.jsonl").open()]
    disagreements, num_solutions = [], 0
    for index, row in enumerate(rows):
        gold = extract_answer(row["ground_truth"])
        for system, entry in row.items():
            if isinstance(entry, dict):
                num_solutions += 1
                if is_match(entry["solution"], gold) is not entry["is_correct"]:
                    disagreements.append((index, system))
    assert num_solutions == 2640
    assert disagreements == []


@needs_gsm8k
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_gsm8k_solution_matches_its_own_answer(split):
    answers = [json.loads(line)["answer"] for line in (GSM8K / f"{split}.jsonl").open()]
    golds = [answer.rpartition("#### ")[2] for answer in answers]
    assert [g for a, g in zip(answers, golds, strict=True) if not is_match(a, g)] == []
    shifted = [str(int(g.replace(",", "")) + 1) for g in golds]
    assert [g for a, g in zip(answers, shifted, strict=True) if is_match(a, g)] == []


def written_ways(value: Fraction, rng: random.Random) -> str:
    """One of the ways to write a number that math-verify reads as well."""
    ways = [f"\\frac{{{value.numerator}}}{{{value.denominator}}}", f"{value.numerator}/{value.denominator}"]
    if value.denominator == 1:
        ways = [str(value.numerator), f"{value.numerator}.0", f"{value.numerator:,}", f"{value.numerator}.00"]
    elif (value * 1000).denominator == 1:
        ways += [str(float(value)), f"{float(value):.3f}"]
    return rng.choice(ways)


def disagreements_with_math_verify(num_cases: int, seed: int) -> list[tuple]:
    import math_verify

    from reward_models.math_verify_worker import equal_formulas

    rng, found = random.Random(seed), []
    for _ in range(num_cases):
        size = rng.choice([10, 100, 10_000, 10**7])
        value = Fraction(rng.randint(-size, size), rng.choice([1, 1, 1, 2, 3, 4, 7, 8, 10, 100, 1000]))
        near = rng.choice([Fraction(1), Fraction(1, 10), Fraction(1, 1000), -2 * value])
        other = value if rng.random() < 0.5 else value + near
        gold, answer = written_ways(value, rng), written_ways(other, rng)
        ours, exact = decide(answer, gold), value == other
        if not ours is exact is equal_formulas(math_verify, answer, gold):
            found.append((gold, answer, ours, exact))
    return found


def test_fast_path_and_math_verify_agree_on_plain_numbers():
    assert disagreements_with_math_verify(1_000, seed=1) == []


@pytest.mark.slow
def test_fast_path_and_math_verify_agree_on_10000_plain_numbers():
    assert disagreements_with_math_verify(10_000, seed=2) == []


HOSTILE = {
    "a megabyte of digits": "9" * 10**6,
    "a megabyte of digits in a box": "\\boxed{" + "9" * 10**6 + "}",
    "10,000 nested braces": "\\boxed{" + "{" * 10_000 + "18" + "}" * 10_000 + "}",
    "10,000 boxes that never close": "\\boxed{" * 10_000 + "18",
    "a megabyte of opening braces after a box": "\\boxed{1" + "{" * 10**6,
    "a megabyte of spaces": " " * 10**6,
    "a megabyte of answers": "answer is " * 10**5,
    "a megabyte of commas": "1," * 500_000,
    "nested fractions": "\\boxed{" + "\\frac{1}{" * 200 + "2" + "}" * 200 + "}",
    "nested roots": "\\boxed{" + "\\sqrt{" * 300 + "2" + "}" * 300 + "}",
    "many equal signs": "\\boxed{" + "x=" * 900 + "1}",
    "many intervals": "\\boxed{" + "(1,2)\\cup" * 150 + "(1,3)}",
    "a wide matrix": "\\boxed{\\begin{pmatrix}" + "1&" * 400 + "2\\end{pmatrix}}",
    "a tag and a megabyte of spaces": "<" + " " * 10**6 + "answer>18",
    "a megabyte of opening answer tags": "<answer>" * 10**5,
    "a megabyte of calculations": "<<1=" * 250_000,
    "a megabyte of points": "1.111" * 200_000,
    "a megabyte of answers in JSON": '{"answer": "' * 80_000,
    "a megabyte of bold": "**a" * 300_000,
    "a megabyte of dollars": "$1" * 500_000,
    "a long product": "\\boxed{" + "1 \\cdot x" * 200 + "}",
    "many signs": "\\boxed{" + "-" * 1_900 + "18}",
    "many factorials": "\\boxed{9" + "!" * 1_900 + "}",
    "many scales": "\\boxed{" + "1万" * 900 + "}",
    "many commands": "\\boxed{" + "\\text{" * 300 + "}" * 300 + "}",
    "many spoken answers": "the answer is not 18. " * 40_000,
    "reasoning tags": "<think>" + "</think>" * 10**5,
}
HOSTILE_FORMULAS = ["9**9**9", "9^{9^{9^{9}}}", "10^{10^{10}}", "(10^{10})!", "(x+1)^{2000}", "\\sum_{n=1}^{10^9} n^2"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_scores_zero_in_no_time(name):
    started = time.process_time()
    scores = math_answer(completions=[HOSTILE[name]] * 2, answer=["18", "\\frac{\\pi}{2}"], item_seconds=2.0)
    assert scores == [0.0, 0.0]
    assert time.process_time() - started < 10.0  # what is quadratic takes minutes


def test_hostile_formulas_cost_at_most_the_time_limit_each_and_do_not_hold_the_others():
    is_match("\\sqrt{4}", "2")  # workers are up
    completions = [*HOSTILE_FORMULAS, "\\boxed{\\sqrt{324}}", "\\boxed{18}"]
    used = children_cpu_seconds()
    scores = math_answer(completions=completions, answer=["18"] * len(completions), item_seconds=1.0)
    assert scores == [0.0] * len(HOSTILE_FORMULAS) + [1.0, 1.0]
    shared_workers().close()  # only the CPU time of ended processes is known
    start_up = 2.0
    assert children_cpu_seconds() - used < (1.0 + start_up) * (len(HOSTILE_FORMULAS) + 2)


def children_cpu_seconds() -> float:
    """CPU time of this process's ended children: unlike wall time it does not depend on who else is on the machine."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_code_in_an_answer_is_never_run(tmp_path):
    target = tmp_path / "executed"
    command = f"__import__('os').system('touch {target}')"
    for answer in (command, f"\\boxed{{{command}}}", f'\\boxed{{exec("{command}") or 2\\pi}}', f"$[{command}]$"):
        for gold in ("18", "2\\pi", "\\begin{pmatrix} 1 \\end{pmatrix}", "[1, 2]"):
            assert not is_match(answer, gold)
    assert not target.exists()


def test_reward_function_takes_strings_and_messages_and_skips_problems_without_an_answer():
    completions = ["#### 18", [{"role": "assistant", "content": "\\boxed{18}"}], "18", "no idea"]
    assert math_answer(completions=completions, answer=["18", "18", None, "18"]) == [1.0, 1.0, None, 0.0]


def test_strict_needs_a_marked_answer():
    assert extract_answer("She makes 18 dollars", "strict") is None
    assert extract_answer("She makes 18 dollars\n#### 18", "strict") == "18"
    assert extract_answer("She makes 18 dollars", "flexible") == "18"
    assert math_answer(completions=["She makes 18", "The answer is 18."], answer=["18"] * 2, mode="strict") == [
        0.0,
        1.0,
    ]
    with pytest.raises(ValueError, match="strict, flexible"):
        extract_answer("18", "loose")


def test_outages_of_the_algebra_are_unscored_and_counted(monkeypatch):
    from reward_models import math_workers

    monkeypatch.setattr(math_workers, "WORKER_FILE", Path("/nowhere/worker.py"))
    monkeypatch.setattr(math_workers, "shared_workers", lambda: math_workers.Workers(1))
    logged = {}
    scores = math_answer(
        completions=["\\sqrt{324}", "18", "19"],
        answer=["18"] * 3,
        log_metric=lambda name, value: logged.update({name: value}),
    )
    assert scores == [Unscored("outage"), 1.0, 0.0]
    assert logged["math_answer/outages"] == pytest.approx(1 / 3)
    with pytest.raises(RuntimeError, match="could not be started"):
        is_match("\\sqrt{324}", "18")


def test_a_worker_that_is_killed_is_replaced():
    from reward_models.math_workers import Worker

    worker = Worker()
    try:
        assert worker.ask([("\\sqrt{324}", "18")], 5.0)
        worker._process.kill()
        worker._process.wait()
        assert not worker.ask([("\\sqrt{324}", "18")], 5.0)  # the death is charged to this answer
        assert worker.ask([("\\sqrt{324}", "18")], 5.0)
    finally:
        worker.stop()


def test_workers_are_recycled_after_their_share_of_jobs(monkeypatch):
    from reward_models import math_workers

    monkeypatch.setattr(math_workers, "JOBS_PER_WORKER", 1)
    worker = math_workers.Worker()
    try:
        assert worker.ask([("x", "x")], 5.0)
        assert worker._process is None
        assert worker.ask([("2x", "x+x")], 5.0)
    finally:
        worker.stop()
