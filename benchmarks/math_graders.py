"""Compares math graders on the hand-written tables of the tests: `python benchmarks/math_graders.py`.

It may assume math-verify and TRL; lm-eval's two GSM8K filters are written out below from its task file (v3), its MATH
rules are loaded from an installed lm-eval (`pip install --no-deps lm-eval==0.4.13`) and left out where there is none.
It will not time rivals in workers: they run as their users run them, in the main thread with their own alarms.
"""

import argparse
import importlib.util
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/reward_models")]

import math_table  # noqa: E402
import math_verify  # noqa: E402
from trl.rewards import accuracy_reward  # noqa: E402

from reward_models.math_answers import is_match  # noqa: E402
from reward_models.math_compare import decide  # noqa: E402
from reward_models.math_extract import extract_answer  # noqa: E402

NUMERIC = (
    math_table.NUMBERS
    + math_table.PERCENT_AND_UNITS
    + math_table.RELATIONS
    + math_table.EXTRACTION
    + math_table.ADVERSARIAL
)
Grader = Callable[[str, str], bool | None]


def ours(answer: str, gold: str) -> bool:
    return is_match(answer, gold)


def ours_without_algebra(answer: str, gold: str) -> bool | None:
    """None where the exact comparison abstains."""
    found = extract_answer(answer)
    decision = False if found is None else decide(found, gold)
    return decision if isinstance(decision, bool) else None


def math_verify_default(answer: str, gold: str) -> bool:
    return math_verify.verify(math_verify.parse(f"\\boxed{{{gold}}}"), math_verify.parse(answer))


def math_verify_latex(answer: str, gold: str) -> bool:
    """Boxed first, LaTeX only, after the reasoning: its strictest common configuration."""
    text = answer.rpartition("</think>")[2]
    config = [math_verify.LatexExtractionConfig(boxed_match_priority=0)]
    return math_verify.verify(math_verify.parse(f"\\boxed{{{gold}}}", config), math_verify.parse(text, config))


def trl_accuracy(answer: str, gold: str) -> bool:
    return accuracy_reward([[{"role": "assistant", "content": answer}]], [f"${gold}$"])[0] == 1.0


def lm_eval_strict(answer: str, gold: str) -> bool:
    match = re.search(r"#### (\-?[0-9\.\,]+)", answer)
    return match is not None and _lm_eval_normal(match[1]) == _lm_eval_normal(gold)


def lm_eval_flexible(answer: str, gold: str) -> bool:
    found = re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", answer)
    return bool(found) and _lm_eval_normal(next(g for g in found[-1] if g)) == _lm_eval_normal(gold)


def _lm_eval_normal(text: str) -> str:
    for pattern in (r",", r"\$", r"(?s).*#### ", r"\.$"):
        text = re.sub(pattern, "", text)
    return text.lower()


def lm_eval_math() -> Grader | None:
    """hendrycks_math's own grading of a completion against a boxed gold answer; None without lm-eval."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "tasks/hendrycks_math/utils.py"
    task = importlib.util.spec_from_file_location("hendrycks_math_utils", path)
    assert task is not None
    assert task.loader is not None
    module = importlib.util.module_from_spec(task)
    task.loader.exec_module(module)

    def grade(answer: str, gold: str) -> bool:
        return module.process_results({"solution": f"\\boxed{{{gold}}}"}, [answer])["exact_match"] == 1

    return grade


GRADERS: dict[str, Grader] = {
    "reward_models.math_answers": ours,
    "its exact comparison alone": ours_without_algebra,
    "math-verify, gold boxed, default": math_verify_default,
    "math-verify, LaTeX only, boxed first": math_verify_latex,
    "TRL accuracy_reward": trl_accuracy,
    "lm-eval GSM8K flexible": lm_eval_flexible,
    "lm-eval GSM8K strict": lm_eval_strict,
}


KINDS = [json.loads(line) for line in (ROOT / "tests/reward_models/math_kinds.jsonl").open(encoding="utf-8")]


def safely(grader: Grader, answer: str, gold: str) -> bool | None:
    """The grader's verdict; False where it raises, as its users would have it."""
    try:
        return grader(answer, gold)
    except Exception:  # a rival's own failure on an answer is part of the measurement
        return False


def print_kinds(every: int) -> None:
    """Right verdicts and false positives of each grader by kind of answer, on every n-th case."""
    chosen = KINDS[::every]
    graders = {name: grader for name, grader in GRADERS.items() if name != "its exact comparison alone"}
    hendrycks = lm_eval_math()
    if hendrycks is not None:
        graders["lm-eval hendrycks_math"] = hendrycks
    names = list(dict.fromkeys(case["kind"] for case in chosen))
    print(f"\n## By kind of answer\n\n{len(chosen)} of the {len(KINDS)} cases of tests/reward_models/math_kinds.jsonl:")
    print("right verdicts, and how many wrong answers were taken for right (after the +).\n")
    print("| kind | cases | " + " | ".join(graders) + " |\n|---|---|" + "---|" * len(graders))
    totals = {name: [0, 0] for name in graders}
    for kind in names:
        cases = [case for case in chosen if case["kind"] == kind]
        cells = []
        for name, grader in graders.items():
            got = [(bool(safely(grader, case["prediction"], case["gold"])), case["match"]) for case in cases]
            right, false_positives = sum(g == m for g, m in got), sum(g and not m for g, m in got)
            totals[name] = [totals[name][0] + right, totals[name][1] + false_positives]
            cells.append(f"{right} (+{false_positives})")
        print(f"| {kind} | {len(cases)} | " + " | ".join(cells) + " |", flush=True)
    print(f"| all | {len(chosen)} | " + " | ".join(f"{r} (+{f})" for r, f in totals.values()) + " |")


def boxed(case: math_table.Case) -> math_table.Case:
    """A bare formula in a box, as models write it: most rivals read LaTeX only there."""
    gold, answer, verdict = case
    bare = "boxed" not in answer and "answer" not in answer and "$" not in answer
    return (gold, f"\\boxed{{{answer}}}", verdict) if bare else case


def verdicts(grader: Grader, cases: list[math_table.Case]) -> dict[str, int]:
    count = {"right": 0, "false_positive": 0, "false_negative": 0, "abstained": 0}
    for gold, answer, verdict in cases:
        got = grader(answer, gold)
        if got is None:
            count["abstained"] += 1
        elif bool(got) == verdict:
            count["right"] += 1
        else:
            count["false_positive" if got else "false_negative"] += 1
    return count


def cpu_microseconds(grader: Grader, cases: list[tuple[str, str]], repeats: int) -> float:
    """CPU time of one call in this process, caches cleared before each round; the best of three rounds."""
    from reward_models.math_compare import _canonical

    times = []
    for _ in range(3):
        started = time.process_time()
        for _ in range(repeats):
            _canonical.cache_clear()
            for answer, gold in cases:
                grader(answer, gold)
        times.append((time.process_time() - started) / repeats / len(cases))
    return min(times) * 1e6


def main() -> None:
    formulas = [boxed(case) for case in math_table.LATEX]
    print("# Math graders on the hand-written table\n")
    print(f"`python benchmarks/math_graders.py`; {len(math_table.TABLE)} cases of tests/reward_models/math_table.py:")
    print(f"{len(NUMERIC)} numbers and sentences (GSM8K style, hostile ones included), and")
    print(f"{len(math_table.LATEX)} formulas, boxed.")
    print("The table was written before the grader was corrected by it, so it favours the grader it corrected.\n")
    print("| grader | numbers: right | formulas: right | false + | false - | abstained |\n|---|---|---|---|---|---|")
    for name, grader in GRADERS.items():
        numeric, latex = verdicts(grader, NUMERIC), verdicts(grader, formulas)
        both = {key: numeric[key] + latex[key] for key in numeric}
        print(
            f"| {name} | {numeric['right']}/{len(NUMERIC)} | {latex['right']}/{len(math_table.LATEX)} | "
            f"{both['false_positive']} | {both['false_negative']} | {both['abstained']} |",
            flush=True,
        )
    print_kinds(1)
    short = [(f"So 3 + {i} = {i + 3}.\n\\boxed{{{i + 3}}}", str(i + 3)) for i in range(100)]
    long = [("We add the numbers and see what comes. " * 300 + answer, gold) for answer, gold in short]
    print("\n| CPU time per answer | short answer | after 12,000 characters of reasoning |\n|---|---|---|")
    timings = {}
    for name, repeats in (("reward_models.math_answers", 20), ("math-verify, gold boxed, default", 1)):
        timings[name] = [cpu_microseconds(GRADERS[name], cases, repeats) for cases in (short, long)]
        print(f"| {name} | {timings[name][0]:.0f} us | {timings[name][1]:.0f} us |")
    first, second = timings.values()
    print(f"| ratio | {second[0] / first[0]:.0f}x | {second[1] / first[1]:.0f}x |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", type=int, metavar="N", help="only the table by kind, on every N-th case")
    arguments = parser.parse_args()
    print_kinds(arguments.kinds) if arguments.kinds else main()
