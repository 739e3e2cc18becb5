"""Do training prompts contain the test problems? Word n-grams shared between the two, reported, nothing removed.

As for GPT-3 (Brown et al. 2020, appendix C): 13 words by default; a problem shorter than that is compared whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..types import Problem

Gram = tuple[str, ...]
TEXT_COLUMNS = ("prompt", "question", "text", "problem", "instruction")


@dataclass(frozen=True)
class Overlap:
    """`keys`: the test problems that share an n-gram with some training prompt, with the first shared n-gram.

    `num_overlapping` counts problems, of which several may have one key.
    """

    n: int
    num_problems: int
    num_training_texts: int
    num_overlapping: int
    keys: dict[str, str]

    @property
    def share(self) -> float:
        return self.num_overlapping / self.num_problems if self.num_problems else float("nan")

    def to_dict(self) -> dict[str, Any]:
        counts = {"num_problems": self.num_problems, "num_training_texts": self.num_training_texts}
        found = {"num_overlapping": self.num_overlapping, "share": self.share, "overlapping": self.keys}
        return {"n": self.n, **counts, **found}


def words(text: str) -> list[str]:
    """Lower-case words and numbers; punctuation and spacing do not hide an overlap."""
    return re.findall(r"\w+", text.lower())


def grams(text: str, n: int) -> list[Gram]:
    """All n-grams in order; the whole text where it has fewer than n words."""
    found = words(text)
    return [tuple(found[i : i + n]) for i in range(max(1, len(found) - n + 1))] if found else []


def overlap(problems: Sequence[Problem], training_texts: Iterable[str], n: int = 13) -> Overlap:
    """Which problems share an n-gram with a training text. The problem's own words are compared, not its exemplars."""
    own = {problem.key: grams(text_of(problem), n) for problem in problems}
    short = {gram for found in own.values() for gram in found if len(gram) < n}
    lengths = {len(gram) for gram in short} | {n}
    wanted = {gram for found in own.values() for gram in found}
    seen: set[Gram] = set()
    count = 0
    for text in training_texts:
        count += 1
        found = words(text)
        for length in lengths:
            seen.update(g for i in range(len(found) - length + 1) if (g := tuple(found[i : i + length])) in wanted)
    first = {key: next((g for g in found if g in seen), None) for key, found in own.items()}
    keys = {key: " ".join(gram) for key, gram in first.items() if gram}
    return Overlap(n, len(problems), count, sum(problem.key in keys for problem in problems), keys)


def text_of(problem: Problem) -> str:
    """What is particular to the problem: its question or code prompt where it has one, else the prompt."""
    return str(problem.columns.get("question") or problem.columns.get("code_prompt") or problem.prompt)


def training_texts(path: str) -> list[str]:
    """The prompts of a training file, one per row, from the first column that holds text."""
    from ..tasks.base import TaskError
    from ..tasks.data import read_rows

    rows = read_rows(Path(path).expanduser())
    column = next((name for name in TEXT_COLUMNS if rows and name in rows[0]), None)
    if column is None:
        raise TaskError(f"{path}: no column with text; expected one of {', '.join(TEXT_COLUMNS)}")
    return [str(row[column]) for row in rows]
