"""Answers that somebody or something gave: completions of a run, records of an evaluation, users' feedback.

It may assume files of this project. It believes none of the verdicts in them: graders ask again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError

ROLLOUT, EVALUATION, FEEDBACK = "rollout", "evaluation", "feedback"
ANONYMOUS = "anonymous"
"""All users without a name are one, and share one cap."""


@dataclass(frozen=True)
class Answer:
    """A prompt as it was shown, the answer given, and where from. `correction` is what a user says is right."""

    origin: str
    place: str
    prompt: str
    text: str
    user: str = ""
    correction: str | None = None


def answers_in(path: Path) -> Iterator[Answer]:
    """Of a feedback or records file, of a log of completions, or of all of these in a folder. UserError of none."""
    if path.is_dir():
        files = sorted([*path.rglob("completions_*.parquet"), *path.rglob("*.jsonl")])
        found = [answer for file in files for answer in _of_file(file)]
    elif path.is_file():
        found = list(_of_file(path))
    else:
        raise UserError(f"{path}: no such file or folder")
    if not found:
        raise UserError(
            f"{path} holds no answers: expected completions_*.parquet of a run, records of an evaluation (.jsonl with "
            "prompt and completion), or feedback (.jsonl with prompt, answer and verdict)"
        )
    yield from found


def _of_file(path: Path) -> Iterator[Answer]:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        for number, row in enumerate(pyarrow.parquet.read_table(path).to_pylist()):
            yield Answer(ROLLOUT, f"{path.name} row {number}", row["prompt"], row["completion"])
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            answer = _of_line(line, f"{path.name} line {number}")
            if answer is not None:
                yield answer


def _of_line(line: bytes, place: str) -> Answer | None:
    """None of a line that is torn, or is something else."""
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        return None
    if isinstance(row.get("completion"), str):
        return Answer(EVALUATION, place, row["prompt"], row["completion"])
    if not isinstance(row.get("answer"), str) or "verdict" not in row:
        return None
    correction = row.get("correction")
    user = str(row["user"]) if row.get("user") is not None else ANONYMOUS
    return Answer(
        FEEDBACK, place, row["prompt"], row["answer"], user, correction if isinstance(correction, str) else None
    )
