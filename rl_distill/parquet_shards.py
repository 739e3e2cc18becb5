"""Rows in parquet shards, found by key: what several processes and runs share, each shard complete or absent.

It may assume a folder that several processes read and write at once. It knows nothing of what the rows mean and
imports no torch.
"""

from __future__ import annotations

import os
import time
import uuid
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ABANDONED_SECONDS = 3600.0  # a temporary file of that age belongs to a process that died


class ParquetShards:
    """Rows of one schema, which has a text column `key`. A crash loses at most the shard being written.

    `what` names the rows in warnings.
    """

    def __init__(self, folder: str | os.PathLike[str], schema: pa.Schema, what: str) -> None:
        self.folder, self.schema, self.what = Path(folder), schema, what
        self.folder.mkdir(parents=True, exist_ok=True)
        self._shard_of: dict[str, Path] = {}  # of each key, the newest shard that has it
        self._seen: set[Path] = set()
        self._remove_abandoned()

    def get_rows(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The rows that are there, by key; keys without one are absent. Shards of other processes are found too."""
        self._look_for_shards()
        wanted: dict[Path, list[str]] = {}
        for key in dict.fromkeys(keys):
            if key in self._shard_of:
                wanted.setdefault(self._shard_of[key], []).append(key)
        rows: dict[str, dict[str, Any]] = {}
        for shard, shard_keys in wanted.items():
            table = pq.read_table(shard)
            chosen = table.filter(pc.is_in(table["key"], pa.array(shard_keys, pa.string())))
            rows.update({row["key"]: row for row in chosen.to_pylist()})
        return rows

    def put_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes the rows as one new shard: visible whole after this returns, or, after a crash, not at all."""
        rows = [dict(row) for row in rows]
        if not rows:
            return
        table = pa.Table.from_pylist(rows, schema=self.schema)
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}.parquet"  # sorts by age: the newest text of a key wins
        temporary = self.folder / f".writing-{name}"
        with temporary.open("wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.folder / name)
        _sync_folder(self.folder)

    def __len__(self) -> int:
        self._look_for_shards()
        return len(self._shard_of)

    def _look_for_shards(self) -> None:
        for shard in sorted(self.folder.glob("[0-9]*.parquet")):
            if shard in self._seen:
                continue
            self._seen.add(shard)
            try:
                keys = self._keys_of(shard)
            except (pa.ArrowInvalid, KeyError, OSError) as error:  # damaged by other hands: its outputs are made anew
                warnings.warn(f"{self.what} in {shard} cannot be read and are ignored: {error}", stacklevel=3)
                continue
            for key in keys:
                if key not in self._shard_of or self._shard_of[key].name < shard.name:
                    self._shard_of[key] = shard

    def _keys_of(self, shard: Path) -> list[str]:
        lacking = set(self.schema.names) - set(pq.read_schema(shard).names)
        if lacking:
            raise KeyError(f"no column {', '.join(sorted(lacking))}")
        return pq.read_table(shard, columns=["key"])["key"].to_pylist()

    def _remove_abandoned(self) -> None:
        for leftover in self.folder.glob(".writing-*"):
            try:
                if time.time() - leftover.stat().st_mtime > ABANDONED_SECONDS:
                    leftover.unlink()
            except FileNotFoundError:  # another process was faster
                continue


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
