"""Evaluations kept in a file, so that a resumed run does not solve the held-out problems again.

May assume that whoever reads asks by the key they were stored under: what they were made from. JSON, whole or absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_atomically
from ..types import Completion, Finish, Problem
from .evaluation import Evaluation


def store(path: Path, key: str, evaluations: Mapping[str, Evaluation]) -> None:
    """Writes the answers and grades of each evaluation by its name."""
    found = {name: [_row(*pair) for pair in _pairs(one)] for name, one in evaluations.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({"key": key, "evaluations": found}) + "\n")


def stored(path: Path, key: str, problems: Sequence[Problem]) -> dict[str, Evaluation] | None:
    """The evaluations of these problems; None where the file is absent, damaged or was made from something else."""
    try:
        content = json.loads(path.read_text())
        if content["key"] != key:
            return None
        return {name: _evaluation(problems, rows) for name, rows in content["evaluations"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _pairs(evaluation: Evaluation) -> zip[tuple[Completion, float | None]]:
    return zip(evaluation.completions, evaluation.grades, strict=True)


def _row(completion: Completion, grade: float | None) -> dict[str, Any]:
    ids, finish = completion.token_ids, completion.finish.value
    return {"text": completion.text, "token_ids": ids, "finish": finish, "grade": grade}


def _evaluation(problems: Sequence[Problem], rows: Sequence[Mapping[str, Any]]) -> Evaluation:
    if len(rows) != len(problems):
        raise ValueError(f"{len(rows)} answers to {len(problems)} problems")
    completions = [Completion(row["text"], row["token_ids"], Finish(row["finish"])) for row in rows]
    return Evaluation(list(problems), completions, [row["grade"] for row in rows])
