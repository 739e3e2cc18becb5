"""What a run's folder holds, read once: results, curves, and every held-out answer by stage.

It may assume the files that reporting/summary.py writes; all but results.json may be absent. It draws nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...evals import statistics
from ...files import read_jsonl

STAGES = ("teacher", "before", "after")
STAGE_KEYS = {"teacher": "teacher", "before": "student_before", "after": "student_after"}
REPRODUCE = re.compile(r"Reproduce with `([^`]+)`")
Answer = dict[str, Any]


class ReportError(UserError, ValueError):
    """A folder is no finished run; the message says what is missing."""


@dataclass(frozen=True)
class Run:
    """One run. `answers`: stage -> the graded answers, the same problems in the same order in every stage."""

    name: str
    results: dict[str, Any]
    metrics: list[dict[str, Any]]
    timing: list[dict[str, Any]]
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    command: str | None = None

    @property
    def is_training(self) -> bool:
        return "student_after" in self.results

    def tasks(self) -> list[str]:
        """Task names, "overall" first; one task alone is the overall."""
        names = [name for name in self.results["student_after"] if name != "overall"]
        return ["overall", *names] if len(names) > 1 else names or ["overall"]

    def series(self, name: str, *, timing: bool = False) -> list[tuple[float, float]]:
        """(step, value) of one metric, in order of steps; what is not a finite number is left out."""
        records = self.timing if timing else self.metrics
        points = [(r["step"], r[name]) for r in records if is_number(r.get(name))]
        return sorted(dict(points).items())

    def names(self, prefix: str, suffix: str = "", *, timing: bool = False) -> list[str]:
        """The metrics that start and end so, in order of appearance."""
        records = self.timing if timing else self.metrics
        found = dict.fromkeys(name for record in records for name in record)
        return [name for name in found if name.startswith(prefix) and name.endswith(suffix)]


def is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and value == value and abs(value) != float("inf")
    )


def read_run(folder: Path) -> Run:
    """The run in a folder; ReportError where it holds no results.json."""
    path = folder / "results.json"
    if not path.is_file():
        raise ReportError(f"{folder} holds no results.json: give the output_dir of a finished run")
    try:
        results = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ReportError(f"{path} is damaged: {error}") from error
    if "student_after" not in results and "tasks" not in results:
        raise ReportError(f"{path} is neither of a training run nor of launch/eval.py")
    answers: dict[str, list[Answer]] = {}
    for record in read_jsonl(folder / "evaluations.jsonl"):
        answers.setdefault(record["stage"], []).append(record)
    return Run(
        name=folder.resolve().name,
        results=results,
        metrics=read_jsonl(folder / "metrics.jsonl"),
        timing=read_jsonl(folder / "timing.jsonl"),
        answers=answers if _aligned(answers) else {},
        command=results.get("command") or _command(folder),
    )


def _aligned(answers: dict[str, list[Answer]]) -> bool:
    prompts = [[(a["task"], a["prompt"]) for a in answers.get(stage, [])] for stage in STAGES]
    return bool(prompts[0]) and prompts[0] == prompts[1] == prompts[2]


def _command(folder: Path) -> str | None:
    report = folder / "report.md"
    match = REPRODUCE.search(report.read_text()) if report.is_file() else None
    return match[1] if match else None


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """All runs; equal names are told apart by number."""
    runs = [read_run(folder) for folder in folders]
    names = [run.name for run in runs]
    for index, run in enumerate(runs):
        if names.count(run.name) > 1:
            runs[index] = Run(**(vars(run) | {"name": f"{run.name} ({index + 1})"}))
    return runs


def estimate(run: Run, stage: str, task: str) -> statistics.Estimate:
    """Accuracy with its 95 % interval: from the answers, else from the results if they say how many problems."""
    scores = graded(run, stage, task)
    if scores:
        return statistics.estimate(scores)
    value, n = run.results[STAGE_KEYS[stage]].get(task), run.results.get("num_test")
    if value is None or task not in ("overall", *run.tasks()[:1]) or not n:
        none = float("nan")
        return statistics.Estimate(none if value is None else value, 0, none, none, none)
    low, high = statistics.wilson(value, n)
    return statistics.Estimate(value, n, (value * (1 - value) / n) ** 0.5, low, high)


def graded(run: Run, stage: str, task: str) -> list[float]:
    """The grades of one stage on one task, without those that could not be graded."""
    return [a["grade"] for a in run.answers.get(stage, []) if in_task(a, task) and a["grade"] is not None]


def in_task(answer: Answer, task: str) -> bool:
    return task == "overall" or answer["task"] == task


def triples(run: Run, task: str) -> list[tuple[Answer, Answer, Answer]]:
    """(teacher, before, after) answers to each problem of a task that was graded in all three stages."""
    rows = zip(*(run.answers.get(stage, []) for stage in STAGES), strict=True)
    return [row for row in rows if in_task(row[0], task) and all(a["grade"] is not None for a in row)]


def gap_interval(run: Run, task: str) -> statistics.Interval:
    """95 % bootstrap interval of the gap recovered; None without answers, or where the gap may be nought."""
    rows = triples(run, task)
    teacher, before, after = ([row[stage]["grade"] for row in rows] for stage in range(3))
    return statistics.bootstrap_gap(after, before, teacher)


def changed(run: Run, was: float, now: float) -> list[tuple[Answer, Answer]]:
    """(before, after) answers to the problems whose verdict went from `was` to `now`."""
    return [
        (before, after)
        for _, before, after in triples(run, "overall")
        if (before["grade"], after["grade"]) == (was, now)
    ]
