"""Rewritten problems: the answer is what it was, or what a hand says of the new numbers; the figures add up."""

import os
import random
import re
from fractions import Fraction
from pathlib import Path

import pytest

from rl_distill.data_preparation.duplicates.critical import tokens
from rl_distill.files import read_jsonl
from rl_distill.tasks.base import TaskOptions, load_task, validate
from rl_distill.tasks.robustness.recompute import changed_number, steps_of, value_of
from rl_distill.tasks.robustness.rewriting import KINDS
from rl_distill.tasks.robustness.task import by_kind
from rl_distill.types import Problem

GSM8K = Path(os.environ.get("RLD_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "gsm8k"
needs_gsm8k = pytest.mark.skipif(not GSM8K.is_dir(), reason="needs GSM8K in shared/data")
QUESTION = "Ann has 25 cows and 3 dogs. She sells 8 cows for $40 each. How much money does she get?"
ANSWER = "She gets 8*40 = <<8*40=320>>320.\n#### 320"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2+3*4", 14), ("(2+3)*4", 20), ("1/3+1/6", Fraction(1, 2)), ("-2*.5", -1), ("1,000-$1", 999),
        ("2**9", None), ("1/0", None), ("__import__('os')", None), ("a+1", None), ("", None), ("True+1", None),
    ],
)  # fmt: skip
def test_values(text, value):
    assert value_of(text) == value


def test_a_changed_number_changes_the_answer_as_it_must():
    seen = set()
    for seed in range(40):
        found = changed_number(QUESTION, ANSWER, random.Random(seed))
        sold, price = (int(word) for word in tokens(found.question) if word.isdigit() and word not in ("25", "3"))
        assert int(found.answer) == sold * price != 320
        seen.add(found.old)
    assert seen == {"8", "40"}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (QUESTION, "<<8*41=328>>\n#### 328"),  # a number from nowhere
        (QUESTION, "<<8*40=321>>\n#### 321"),  # wrong
        (QUESTION, "<<8*40=320>>\n#### 322"),  # not the answer
        (QUESTION, "<<25-8=17>>17 <<8*40=320>>\n#### 320"),  # a step that nothing uses
        ("Ann has 8 cows. She takes the cheaper of 40 and 50 each. How much?", "<<8*40=320>>\n#### 320"),
        ("Ann has 8 cows and 8 dogs, each $2. How much?", "<<8*2=16>>\n#### 16"),  # which 8?
        ("It is 60% of 7 cows. How many?", "<<60*7=420>>\n#### 420"),
    ],
)
def test_a_problem_that_is_not_accounted_for_is_refused(question, answer):
    assert changed_number(question, answer, random.Random(0)) is None


@needs_gsm8k
def test_new_answers_agree_with_the_steps_of_real_solutions_replayed_by_hand():
    """An independent replay: the old number is replaced in the text of each step, results are carried forward."""
    checked = 0
    for i, row in enumerate(read_jsonl(GSM8K / "train.jsonl")[:3000]):
        found = changed_number(row["question"], row["answer"], random.Random(i))
        if found is None:
            continue
        carried = {Fraction(found.old.replace(",", "")): Fraction(found.new)}
        for step in steps_of(row["question"], row["answer"]):
            text = "".join(
                f"({carried.get(Fraction(part), Fraction(part))})" if part[0] in ".0123456789" else part
                for part in re.findall(r"\d+\.?\d*|\.\d+|[^\d.]", step.expression)
            )
            carried[step.value] = value_of(text)
        assert Fraction(found.answer) == carried[step.value]
        checked += 1
    assert checked > 400


@needs_gsm8k
def test_rewritings_keep_the_numbers_of_real_problems():
    for i, row in enumerate(read_jsonl(GSM8K / "test.jsonl")):
        old = [token for token in tokens(row["question"]) if token.isdigit()]
        for kind, rewrite in KINDS.items():
            new = rewrite(row["question"], random.Random(i))
            if new is not None:
                assert new != row["question"]
                now = [token for token in tokens(new) if token.isdigit()]
                assert len(now) - len(old) == (kind == "counted_aside")
                assert kind == "counted_aside" or now == old


@needs_gsm8k
def test_the_task_grades_its_own_golds():
    task = load_task("gsm8k_robust", TaskOptions(str(GSM8K), "5-shot"))
    problems = task.problems()
    assert len({problem.key for problem in problems}) == len(problems)
    assert all(problem.prompt.count(problem.columns["question"]) == 1 for problem in problems)
    assert sum(problem.columns["kind"] == "original" for problem in problems) == 1319
    assert validate(task, problems[::7]) == len(problems[::7])


def test_the_figures_of_a_small_table_by_hand():
    kinds = [("a", "original", 1), ("a", "typos", 1), ("a", "aside", 0), ("b", "original", 1), ("b", "typos", 1)]
    kinds += [("c", "original", 0), ("c", "typos", 1)]
    problems = [Problem("t", k if n == "original" else f"{k}/{n}", "", columns={"kind": n}) for k, n, _ in kinds]
    records = [{"scores": {"flexible": float(score)}} for _, _, score in kinds]
    assert by_kind(problems, records) == {
        "original/typos": pytest.approx(2 / 3),
        "flexible/typos": 1,
        "original/aside": 1,
        "flexible/aside": 0,
        "consistency": 0.5,  # of a and b, b alone is right in every rewriting
    }
