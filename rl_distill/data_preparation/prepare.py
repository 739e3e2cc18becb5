"""The preparation from sources to files: examined in chunks, compared, split, augmented, reported.

The output follows from the sources and the settings alone, whatever the number of processes. No row is dropped without
a line in removed.jsonl.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from ..errors import UserError
from ..evals.decontamination import training_texts
from .augmentation import all_augmented, rewritten, writers_of
from .duplicates import Prints, find_duplicates, fingerprint
from .examine import Examined, HeldGrams, examine, examine_in_worker, start_worker
from .files import Given, RowStore, given_rows, in_chunks, line_of
from .report import Tally, write_reports
from .settings import Settings
from .splitting import TRAIN, Place, assign
from .texts import Row, prompt_text

CHUNK = 256
"""Rows that a worker examines at once."""
REMOVED = "removed.jsonl"


def prepare(settings: Settings, command: str = "") -> dict[str, Any]:
    """Writes the splits, removed.jsonl, report.json, report.md and manifest.json; the report is returned.

    UserError where the output folder holds something, a source cannot be read, or no row is left.
    """
    if settings.out.exists() and any(settings.out.iterdir()):
        raise UserError(f"--out {settings.out} is not empty; name a folder that is new")
    tests = HeldGrams.of([text for path in settings.test_sets for text in training_texts(path)], settings.ngram)
    settings.out.mkdir(parents=True, exist_ok=True)
    work = _Work(settings, tests)
    try:
        work.examine()
        work.compare()
        work.write_splits()
    finally:
        work.close()
    return write_reports(settings, work.tally, command)


@dataclass
class _Work:
    """What the stages hand on: kept rows on disk, their fingerprints, and the tally of what went."""

    settings: Settings
    tests: HeldGrams
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.kept = RowStore(self.settings.out / "kept.tmp")
        self.removed = (self.settings.out / REMOVED).open("w", encoding="ascii")
        self.parts: list[Prints] = []
        self.gone: set[int] = set()
        self.columns: set[str] = set()

    def close(self) -> None:
        self.kept.remove()
        self.removed.close()

    def remove(self, row: Row, place: str, reason: str, detail: str = "") -> None:
        self.tally.removed(reason, place, prompt_text(row, self.settings.prompt_column) or str(row)[:300], detail)
        self.removed.write(line_of({"reason": reason, "place": place, "detail": detail, "row": row}))

    def examine(self) -> None:
        for found in _bar(self._examined(), "rows examined"):
            standing = [item for item in found if item.reason is None]
            for item in found:
                self.tally.read(item.row, item.changed, self.settings)
                self.columns |= item.row.keys()
                if item.reason is None:
                    self.kept.append({"place": item.place, "row": item.row})
                else:
                    self.remove(item.row, item.place, item.reason, item.detail)
            if standing:
                self.parts.append(Prints.of([item.print for item in standing if item.print is not None]))
        self.check_columns()
        if not self.parts:
            words = self.tally.in_words()
            hint = f"; name the prompt's column with --prompt_column: {', '.join(sorted(self.columns))}"
            hint = hint if "no_prompt" in words and self.columns else ""
            raise UserError(f"every row of {' '.join(self.settings.sources)} was removed: {words}{hint}")

    def check_columns(self) -> None:
        """UserError where an option names a column that no row has."""
        settings = self.settings
        named = [
            ("--prompt_column", settings.prompt_column),
            ("--stratify", settings.stratify),
            ("--key", settings.key),
        ]
        for option, column in [*named, *(("--labels", label) for label in settings.labels)]:
            if column is not None and column not in self.columns:
                there = ", ".join(sorted(self.columns)) or "none"
                raise UserError(f"{option} {column}: no row has this column; the columns are: {there}")

    def _examined(self) -> Iterator[list[Examined]]:
        chunks = in_chunks(given_rows(self.settings.sources), CHUNK)
        if self.settings.processes == 1:
            yield from (examine(chunk, self.settings, self.tests) for chunk in chunks)
            return
        spawn = multiprocessing.get_context("spawn")
        start: dict[str, Any] = {"initializer": start_worker, "initargs": (self.settings, self.tests)}
        with ProcessPoolExecutor(self.settings.processes, mp_context=spawn, **start) as pool:
            yield from _in_order(lambda chunk: pool.submit(examine_in_worker, chunk), chunks, self.settings.processes)

    def compare(self) -> None:
        column = self.settings.prompt_column
        read: Callable[[int], Row] = lambda index: self.kept.read(index)["row"]  # noqa: E731
        found = find_duplicates(Prints.joined(self.parts), read, self.settings.near_duplicates, column)
        for index, (reason, other) in sorted(found.items()):
            item, of = self.kept.read(index), self.kept.read(other)
            self.remove(item["row"], item["place"], reason, f"{of['place']}: {prompt_text(of['row'], column)}")
        self.gone = set(found)

    def write_splits(self) -> None:
        settings, left = self.settings, [i for i in range(len(self.kept)) if i not in self.gone]
        splits = assign([self._place(index) for index in left], settings.shares, settings.seed)
        names = [TRAIN, *settings.shares]
        files = {name: (settings.out / f"{name}.jsonl").open("w", encoding="ascii") for name in names}
        texts = {int(value) for part in self.parts for value in part.text}
        for index, split in _bar(list(zip(left, splits, strict=True)), "rows written"):
            row = self.kept.read(index)["row"]
            made = self._more(row, texts) if split == TRAIN else []
            for one in [row, *made]:
                files[split].write(line_of(one))
                self.tally.written(split, one, settings)
        train = (index for index, split in zip(left, splits, strict=True) if split == TRAIN)
        for one in self._rewritten(train, texts) if settings.writers is not None else ():
            files[TRAIN].write(line_of(one))
            self.tally.written(TRAIN, one, settings)
        for file in files.values():
            file.close()

    def _rewritten(self, train: Iterator[int], texts: set[int]) -> Iterator[Row]:
        """What the user's functions write of the rows of train, a chunk at a time, verified and new."""
        column = self.settings.prompt_column
        solve, writers = writers_of(str(self.settings.writers))
        for chunk in in_chunks(train, CHUNK):
            rows = [self.kept.read(index)["row"] for index in chunk]
            for kind, write in writers.items():
                allowed: Callable[[str], bool] = lambda text: self.tests.shared_with(text) is None  # noqa: E731
                for new in rewritten(rows, write, solve, kind, column, allowed).rows:
                    text = fingerprint(new, column).text
                    if text not in texts:
                        texts.add(text)
                        yield new

    def _more(self, row: Row, texts: set[int]) -> list[Row]:
        """New rows that no row has said already and no test problem contains."""
        made = []
        column = self.settings.prompt_column
        for new in all_augmented(row, self.settings.augment, self.settings.seed, column):
            text = fingerprint(new, column).text
            if text not in texts and self.tests.shared_with(prompt_text(new, column) or "") is None:
                texts.add(text)
                made.append(new)
        return made

    def _place(self, index: int) -> Place:
        row, settings = self.kept.read(index)["row"], self.settings
        key = row.get(settings.key) if settings.key else None
        stratum = row.get(settings.stratify) if settings.stratify else ""
        return Place(str(key) if key is not None else prompt_text(row, settings.prompt_column) or "", str(stratum))


def _in_order(
    submit: Callable[[list[Given]], Future[list[Examined]]], chunks: Iterator[list[Given]], processes: int
) -> Iterator[list[Examined]]:
    """Results in the order of the chunks, a few chunks ahead of the reader at most."""
    waiting: deque[Future[list[Examined]]] = deque()
    for chunk in chunks:
        waiting.append(submit(chunk))
        if len(waiting) > 2 * processes:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _bar(items: Any, label: str) -> Any:
    return tqdm(items, desc=label, delay=5.0, mininterval=1.0, leave=False, file=sys.stderr)
