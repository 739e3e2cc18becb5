"""Rows in and out: sources as a stream, kept rows on disk with random access, removed ones with their reasons.

JSON lines are streamed; other formats are read whole, as `data.train` reads them.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ..config import ConfigError
from ..data.sources import read_rows
from ..errors import UserError
from .texts import Row

Given = tuple[str, Row | str]
Item = TypeVar("Item")
"""(place, row), or (place, the line) where that is no JSON object."""


def given_rows(sources: Iterable[str]) -> Iterator[Given]:
    """Every row of every source in order. UserError where a source is missing or, other than .jsonl, unreadable."""
    for source in sources:
        if source.endswith(".jsonl"):
            yield from _json_lines(Path(source).expanduser())
        else:
            try:
                yield from ((row.place, row.columns) for row in read_rows(source, "train"))
            except ConfigError as error:
                raise UserError(str(error).replace("data.train: ", "")) from error


def _json_lines(path: Path) -> Iterator[Given]:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            text = line.decode("utf-8", "replace")
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield f"{path.name} line {number}", row if isinstance(row, dict) else text


def in_chunks(rows: Iterable[Item], size: int) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class RowStore:
    """Rows on disk, read by index. Memory: eight bytes a row."""

    def __init__(self, path: Path) -> None:
        self.path, self.starts = path, array("q")
        self._file = path.open("w+b")

    def __len__(self) -> int:
        return len(self.starts)

    def append(self, row: Any) -> None:
        self.starts.append(self._file.seek(0, 2))
        self._file.write(line_of(row).encode("ascii"))

    def read(self, index: int) -> Any:
        self._file.seek(self.starts[index])
        return json.loads(self._file.readline())

    def remove(self) -> None:
        self._file.close()
        self.path.unlink()


def line_of(row: Any) -> str:
    """A line of a .jsonl file; values that JSON does not know, such as dates, as text."""
    return json.dumps(row, default=str) + "\n"


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
