"""One chunk of rows, in a worker process: normal form, rules, labels, gold answers, contamination, fingerprints.

It may assume nothing of the rows. It returns every one of them, kept or with the reason it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..evals.decontamination import Gram, grams, words
from .agreement import majority_share
from .duplicates import Print, fingerprint
from .gold import gold_faults
from .rules import refused
from .settings import Settings
from .texts import Row, normalized_row, prompt_text


@dataclass
class Examined:
    """A row in normal form. `reason` None: it stands so far, and `print` is there."""

    row: Row
    place: str
    reason: str | None = None
    detail: str = ""
    changed: bool = False
    print: Print | None = None


@dataclass(frozen=True)
class HeldGrams:
    """The n-grams of the test problems by length; shorter problems count whole."""

    by_length: Mapping[int, frozenset[Gram]]

    @classmethod
    def of(cls, texts: Sequence[str], n: int) -> HeldGrams:
        found: dict[int, set[Gram]] = {}
        for text in texts:
            for gram in grams(text, n):
                found.setdefault(len(gram), set()).add(gram)
        return cls({length: frozenset(own) for length, own in found.items()})

    def shared_with(self, text: str) -> str | None:
        """The first n-gram that the text shares with a test problem."""
        found = words(text)
        for length, own in self.by_length.items():
            for i in range(len(found) - length + 1):
                if (gram := tuple(found[i : i + length])) in own:
                    return " ".join(gram)
        return None


_STATE: dict[str, Any] = {}


def start_worker(settings: Settings, tests: HeldGrams) -> None:
    _STATE.update(settings=settings, tests=tests)


def examine_in_worker(chunk: Sequence[tuple[str, Row | str]]) -> list[Examined]:
    return examine(chunk, _STATE["settings"], _STATE["tests"])


def examine(chunk: Sequence[tuple[str, Row | str]], settings: Settings, tests: HeldGrams) -> list[Examined]:
    """The chunk in its order; (place, row), or (place, what is wrong with a line that is no row)."""
    found = [_first_look(place, row, settings) for place, row in chunk]
    if settings.check_gold:
        standing = [item for item in found if item.reason is None]
        faults = gold_faults([item.row for item in standing], settings.prompt_column)
        for item, fault in zip(standing, faults, strict=True):
            item.reason = fault
    for item in found:
        if item.reason is None:
            item.detail = tests.shared_with(prompt_text(item.row, settings.prompt_column) or "") or ""
            item.reason = "contaminated" if item.detail else None
        if item.reason is None:
            item.print = fingerprint(item.row, settings.prompt_column)
    return found


def _first_look(place: str, given: Row | str, settings: Settings) -> Examined:
    if isinstance(given, str):
        return Examined({"line": given[:2000]}, place, "no_json_object")
    row = normalized_row(given, settings.prompt_column)
    reason = refused(row, settings.rules, settings.prompt_column)
    if reason is None and settings.labels and settings.min_agreement > 0:
        labels = labels_of(row, settings.labels)
        if labels and majority_share(labels) < settings.min_agreement:
            reason = "labels_disagree"
    return Examined(row, place, reason, changed=row != given)


def labels_of(row: Row, columns: Sequence[str]) -> list[Any]:
    """The labels that are there."""
    return [row[name] for name in columns if row.get(name) not in (None, "")]
