"""GSM8K's test problems as they are and rewritten by rules, with answers that are kept or computed anew.

Metrics: those of GSM8K over all, `consistency`, the share of problems right as they are that are right in every
rewriting too, and `flexible/KIND` beside `original/KIND`, the same problems as they are. A problem has the rewritings
that fit it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...types import Problem
from ..base import Task, TaskOptions
from ..gsm8k import gsm8k, show
from .recompute import changed_number
from .rewriting import KINDS

ORIGINAL, NUMBERS = "original", "numbers"


def gsm8k_robust(options: TaskOptions) -> Task:
    """GSM8K's test problems, each followed by its rewritings by rule."""
    plain = gsm8k(options)
    return replace(
        plain,
        name="gsm8k_robust",
        problems=lambda: [new for one in plain.problems() for new in rewritings(one, plain.protocol)],
        corpus=by_kind,
    )


def rewritings(problem: Problem, protocol: str) -> list[Problem]:
    """The problem itself, then each kind that fits; fixed by the problem's key."""
    question = str(problem.columns["question"])
    found = [replace(problem, task="gsm8k_robust", columns=problem.columns | {"kind": ORIGINAL})]
    for kind, rewrite in KINDS.items():
        text = rewrite(question, random.Random(f"{problem.key}:{kind}"))
        if text is not None:
            found.append(_as(problem, kind, text, problem.solution, protocol))
    changed = changed_number(question, problem.solution, random.Random(f"{problem.key}:{NUMBERS}"))
    if changed is not None:
        solution = "\n".join([*changed.steps, f"#### {changed.answer}"])
        found.append(_as(problem, NUMBERS, changed.question, solution, protocol))
    return found


def _as(problem: Problem, kind: str, question: str, solution: str, protocol: str) -> Problem:
    shown = show(str(problem.columns["question"]), protocol)
    prompt = problem.prompt.removesuffix(shown) + show(question, protocol)
    final = solution.rpartition("####")[2].strip()
    columns = problem.columns | {"question": question, "answer": final, "kind": kind}
    return Problem("gsm8k_robust", f"{problem.key}/{kind}", prompt, solution, columns)


def by_kind(problems: Sequence[Problem], records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Accuracy by kind, that of the same problems as they are, and consistency; a record for each problem."""
    scores = {p.key: r["scores"]["flexible"] for p, r in zip(problems, records, strict=True)}
    means = {key: float(score) for key, score in scores.items() if score is not None}
    pairs: dict[str, list[tuple[float, float]]] = {}
    for problem in problems:
        kind, base = problem.columns["kind"], problem.key.removesuffix(f"/{problem.columns['kind']}")
        if kind != ORIGINAL and problem.key in means and base in means:
            pairs.setdefault(kind, []).append((means[base], means[problem.key]))
    found = {}
    for kind, own in pairs.items():
        found[f"original/{kind}"] = sum(old for old, _ in own) / len(own)
        found[f"flexible/{kind}"] = sum(new for _, new in own) / len(own)
    return found | _consistency(problems, means)


def _consistency(problems: Sequence[Problem], means: Mapping[str, float]) -> dict[str, float]:
    """Of the problems that are right as they are; none where there is no such problem."""
    groups: dict[str, list[float]] = {}
    for problem in problems:
        kind = problem.columns["kind"]
        base = problem.key if kind == ORIGINAL else problem.key.removesuffix(f"/{kind}")
        if means.get(base) == 1 and kind != ORIGINAL and problem.key in means:
            groups.setdefault(base, []).append(means[problem.key])
    whole = [all(score == 1 for score in found) for found in groups.values()]
    return {"consistency": sum(whole) / len(whole)} if whole else {}
