"""Problems with gold answers that can be trusted, and which of them an answer was given to.

A prompt of a run or an evaluation may wrap its problem (template, examples); one of feedback must be the problem and
nothing else, as whatever stands around it was written by a user.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..data_preparation.duplicates.critical import tokens
from ..data_preparation.files import given_rows
from ..data_preparation.texts import Row, prompt_text
from ..errors import UserError

TAIL = 5
"""Last tokens of a problem by which it is looked for in longer prompts."""


class KnownProblems:
    """Rows by the tokens of their prompts."""

    def __init__(self, rows: Sequence[Row], column: str | None = None) -> None:
        self.rows = list(rows)
        self.by_text: dict[tuple[str, ...], int] = {}
        self.by_tail: dict[tuple[str, ...], list[int]] = {}
        self.words: list[tuple[str, ...]] = []
        for index, row in enumerate(self.rows):
            found = tuple(tokens(prompt_text(row, column) or ""))
            self.words.append(found)
            if found:
                self.by_text.setdefault(found, index)
                self.by_tail.setdefault(found[-TAIL:], []).append(index)

    @classmethod
    def read(cls, paths: Sequence[str], column: str | None = None) -> KnownProblems:
        rows = [row for _, row in given_rows(paths) if isinstance(row, dict) and prompt_text(row, column)]
        if not rows:
            raise UserError(f"--problems {' '.join(paths)}: no row with a prompt")
        return cls(rows, column)

    def alone(self, prompt: str) -> int | None:
        """The problem that the prompt is, whatever its case, punctuation and spacing."""
        return self.by_text.get(tuple(tokens(prompt)))

    def inside(self, prompt: str) -> int | None:
        """The problem that stands last in the prompt, the longest where several end at one place."""
        found = tuple(tokens(prompt))
        for end in range(len(found), 0, -1):
            fits = [i for i in self.by_tail.get(found[max(0, end - TAIL) : end], ()) if self._ends_at(i, found, end)]
            if fits:
                return max(fits, key=lambda i: len(self.words[i]))
        return None

    def _ends_at(self, index: int, answer: tuple[str, ...], end: int) -> bool:
        words = self.words[index]
        return len(words) <= end and answer[end - len(words) : end] == words
