"""What the teacher wrote for each prompt, kept on disk so that it is generated once and shared by runs.

It may assume a folder that several processes read and write at once; every shard is complete or absent.
It will not generate, and imports no torch.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..parquet_shards import ParquetShards
from ..types import Completion, Finish

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("prompt", pa.string()),
        ("texts", pa.list_(pa.string())),
        ("finished", pa.list_(pa.bool_())),
    ]
)


@dataclass(frozen=True)
class TeacherOutput:
    """What one teacher wrote for one prompt under one set of sampling settings; `texts` has one item per sample."""

    key: str
    prompt: str
    texts: tuple[str, ...]
    finished: tuple[bool, ...]
    """Of each text: whether it ended by EOS or a stop string; False where it was cut by length."""

    def __post_init__(self) -> None:
        if isinstance(self.texts, str) or not self.texts:
            raise ValueError("texts is a sequence of at least one text; a failed generation is not to be cached")
        if len(self.finished) != len(self.texts):
            raise ValueError(f"finished says of each of {len(self.texts)} texts whether it ended, not {self.finished}")

    def completions(self) -> list[Completion]:
        """The texts as graders take them; their token ids are not kept."""
        ends = [Finish.STOP if finished else Finish.LENGTH for finished in self.finished]
        return [Completion(text, [0], end) for text, end in zip(self.texts, ends, strict=True)]


def output_key(teacher: str, prompt: str | list[dict[str, Any]], sampling: Mapping[str, Any]) -> str:
    """Hash of the teacher's fingerprint (name and revision, or hash of its weights), the prompt and the settings.

    The order of the settings' names does not matter; every setting that changes the text has to be among them.
    """
    content = json.dumps([teacher, prompt, dict(sampling)], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()


class TeacherOutputCache(ParquetShards):
    """The outputs of teachers in a folder, by their keys."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__(folder, SCHEMA, "teacher outputs")

    def get(self, keys: Iterable[str]) -> dict[str, TeacherOutput]:
        """The outputs that are there, by key; keys without one are absent. Shards of other processes are found too."""
        return {
            key: TeacherOutput(key, row["prompt"], tuple(row["texts"]), tuple(row["finished"]))
            for key, row in self.get_rows(keys).items()
        }

    def put(self, rows: Iterable[TeacherOutput]) -> None:
        """Writes the rows as one new shard: visible whole after this returns, or, after a crash, not at all."""
        self.put_rows(
            {"key": row.key, "prompt": row.prompt, "texts": list(row.texts), "finished": list(row.finished)}
            for row in rows
        )
