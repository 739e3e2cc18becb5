"""One record per graded completion, in JSONL files that survive an interruption; their summary by metric.

Every process appends to a file of its own, a whole batch at a time; the main process merges them at the end. A record
is found again by (problem index, sample), so any number of processes can go on where another number stopped.
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import read_jsonl, write_atomically
from ..tasks.base import Task
from . import statistics

LENGTHS = (1000, 4000, 8000)
"""Tokens of a prompt beyond which accuracy is told by itself."""
Record = dict[str, Any]
Place = tuple[int, int]  # problem index, sample


def place(record: Record) -> Place:
    return record["index"], record["sample"]


class RecordFiles:
    """The records of one task and model under a folder; `fingerprint` names everything that decides them."""

    def __init__(self, folder: Path, task: str, fingerprint: dict[str, Any]) -> None:
        self.folder, self.task = folder, task.replace("/", "_").replace(":", "_")
        self.merged = folder / f"{self.task}.jsonl"
        self.head = folder / f"{self.task}.settings.json"
        self.fingerprint = json.loads(json.dumps(fingerprint))

    def open(self, start_anew: bool) -> None:
        """Keeps records made under the same settings and removes others; for the main process only."""
        self.folder.mkdir(parents=True, exist_ok=True)
        known = json.loads(self.head.read_text()) if self.head.is_file() else None
        if start_anew or known != self.fingerprint:
            for path in (self.merged, *self._parts()):
                path.unlink(missing_ok=True)
            write_atomically(self.head, json.dumps(self.fingerprint, indent=1))
        self.merge()  # a line torn by a crash goes before anything is appended after it

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.task}.part-*.jsonl"))

    def read(self) -> dict[Place, Record]:
        """Every record written so far; a line torn by a crash is left out."""
        return {place(record): record for path in (self.merged, *self._parts()) for record in read_jsonl(path)}

    def append(self, rank: int, records: Sequence[Record]) -> None:
        path = self.folder / f"{self.task}.part-{rank}.jsonl"
        with path.open("a") as file:
            file.write("".join(json.dumps(record) + "\n" for record in records))

    def merge(self) -> list[Record]:
        """All records in order, in one file; the parts are removed."""
        found = self.read()
        records = [found[key] for key in sorted(found)]
        write_atomically(self.merged, "".join(json.dumps(record) + "\n" for record in records))
        for path in self._parts():
            path.unlink()
        return records


def by_problem(records: Sequence[Record], metric: str) -> dict[int, float]:
    """Problem index -> mean score over the samples that could be graded; without problems that have no such sample."""
    return {index: sum(scores) / len(scores) for index, scores in graded_samples(records, metric).items()}


def graded_samples(records: Sequence[Record], metric: str) -> dict[int, list[float]]:
    """Problem index -> the scores of its samples that could be graded. (Keys may repeat: TriviaQA asks some twice.)"""
    scores: dict[int, list[float]] = defaultdict(list)
    for record in records:
        if record["scores"][metric] is not None:
            scores[record["index"]].append(record["scores"][metric])
    return scores


def summarize(task: Task, records: Sequence[Record], ks: Sequence[int]) -> dict[str, Any]:
    """Per metric: value, n, standard error and 95 % interval; pass@k; counts of what was cut or not graded."""
    metrics: dict[str, Any] = {}
    for metric in task.metrics:
        metrics[metric] = summarize_metric(metric, records)
    for name, part in parts(records).items():
        metrics[f"{task.metrics[0]} ({name})"] = summarize_metric(task.metrics[0], part)
    for k in ks:
        values = _pass_at_k(records, task.metrics[0], k)
        if values:
            metrics[f"pass@{k}"] = _plain(statistics.estimate(values))
    tokens = [record["tokens"] for record in records]
    return {
        "metrics": metrics,
        "num_problems": len({record["index"] for record in records}),
        "num_completions": len(records),
        "cut_by_length": sum(record["finish"] == "length" for record in records),
        "mean_tokens": sum(tokens) / len(tokens) if tokens else None,
    }


def parts(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records with prompts beyond each of LENGTHS, and of each language, by what to call them; none where all records
    would be in one part."""
    found: dict[str, list[Record]] = {}
    lengths = [record.get("prompt_tokens", 0) for record in records]
    if lengths and max(lengths) > LENGTHS[0]:
        found[f"prompts up to {LENGTHS[0]:,} tokens"] = [
            r for r, n in zip(records, lengths, strict=True) if n <= LENGTHS[0]
        ]
        for limit in LENGTHS:
            found[f"prompts beyond {limit:,} tokens"] = [r for r, n in zip(records, lengths, strict=True) if n > limit]
    languages = sorted({record["language"] for record in records if "language" in record})
    for language in languages if len(languages) > 1 else ():
        found[f"language {language}"] = [record for record in records if record.get("language") == language]
    return {name: part for name, part in found.items() if part}


def summarize_metric(metric: str, records: Sequence[Record]) -> dict[str, Any]:
    """Value, n, standard error and 95 % interval of one metric, and how many records could not be graded."""
    found = _plain(statistics.estimate(list(by_problem(records, metric).values())))
    return found | {"not_graded": sum(record["scores"][metric] is None for record in records)}


def _plain(estimate: statistics.Estimate) -> dict[str, Any]:
    return {name: plain(value) for name, value in dataclasses.asdict(estimate).items()}


def plain(value: float) -> float | None:
    """The number, or None for NaN, which JSON does not have."""
    return None if value != value else value


def _pass_at_k(records: Sequence[Record], metric: str, k: int) -> list[float]:
    """pass@k of each problem that has at least k graded samples, a score of 1 being a pass."""
    return [
        statistics.pass_at_k(len(scores), sum(score == 1.0 for score in scores), k)
        for scores in graded_samples(records, metric).values()
        if len(scores) >= k
    ]
