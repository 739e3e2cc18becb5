"""What the teacher wrote for each prompt, kept on disk so that it is generated once and shared by runs.

It may assume a folder that several processes read and write at once; every shard is complete or absent.
It will not generate, and imports no torch.
"""

import hashlib
import json
import os
import time
import uuid
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SCHEMA = pa.schema([("key", pa.string()), ("prompt", pa.string()), ("texts", pa.list_(pa.string()))])
ABANDONED_SECONDS = 3600.0  # a temporary file of that age belongs to a process that died


@dataclass(frozen=True)
class TeacherOutput:
    """What one teacher wrote for one prompt under one set of sampling settings; `texts` has one item per sample."""

    key: str
    prompt: str
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        if isinstance(self.texts, str) or not self.texts:
            raise ValueError("texts is a sequence of at least one text; a failed generation is not to be cached")


def output_key(teacher: str, prompt: str | list[dict[str, Any]], sampling: Mapping[str, Any]) -> str:
    """Hash of the teacher's fingerprint (name and revision, or hash of its weights), the prompt and the settings.

    The order of the settings' names does not matter; every setting that changes the text has to be among them.
    """
    content = json.dumps([teacher, prompt, dict(sampling)], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()


class TeacherOutputCache:
    """Parquet shards in a folder. A crash loses at most the rows of the shard being written, and breaks nothing."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._shard_of: dict[str, Path] = {}  # of each key, the newest shard that has it
        self._seen: set[Path] = set()
        self._remove_abandoned()

    def get(self, keys: Iterable[str]) -> dict[str, TeacherOutput]:
        """The outputs that are there, by key; keys without one are absent. Shards of other processes are found too."""
        self._look_for_shards()
        wanted: dict[Path, list[str]] = {}
        for key in dict.fromkeys(keys):
            if key in self._shard_of:
                wanted.setdefault(self._shard_of[key], []).append(key)
        found = {}
        for shard, shard_keys in wanted.items():
            table = pq.read_table(shard)
            rows = table.filter(pc.is_in(table["key"], pa.array(shard_keys, pa.string()))).to_pylist()
            found.update({row["key"]: TeacherOutput(row["key"], row["prompt"], tuple(row["texts"])) for row in rows})
        return found

    def put(self, rows: Iterable[TeacherOutput]) -> None:
        """Write the rows as one new shard: visible whole after this returns, or, after a crash, not at all."""
        rows = list(rows)
        if not rows:
            return
        table = pa.Table.from_pylist(
            [{"key": row.key, "prompt": row.prompt, "texts": list(row.texts)} for row in rows], schema=SCHEMA
        )
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
                keys = pq.read_table(shard, columns=["key"])["key"].to_pylist()
            except (pa.ArrowInvalid, KeyError, OSError) as error:  # damaged by other hands: its outputs are made anew
                warnings.warn(f"teacher outputs in {shard} cannot be read and are ignored: {error}", stacklevel=3)
                continue
            for key in keys:
                if key not in self._shard_of or self._shard_of[key].name < shard.name:
                    self._shard_of[key] = shard

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
