"""Rows of a benchmark: from the hub through `datasets`, or from local files in the datasets' own formats.

It may assume a split name and, for local data, a file or a folder. It will not change a row.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from .base import TaskError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
Row = dict[str, Any]


def rows_of(task: str, split: str, data_path: str | None, hub_id: str, config_name: str | None = None) -> list[Row]:
    """The rows of one split. TaskError, in one line with both ways to get the data, where there are none."""
    if data_path is not None:
        return read_rows(find_file(task, split, Path(data_path).expanduser(), hub_id))
    return _from_hub(task, split, hub_id, config_name)


def has_split(split: str, data_path: str | None) -> bool:
    """False where local data plainly lacks the split (a single file, or a folder without such a file)."""
    if data_path is None:
        return True
    return bool(_candidates(Path(data_path).expanduser(), split))


def find_file(task: str, split: str, place: Path, hub_id: str) -> Path:
    """The file of a split: `place` itself, or in the folder the one that bears the split's name, or the only one."""
    if place.is_file():
        return place
    found = _candidates(place, split) or [path for path in _data_files(place) if len(_data_files(place)) == 1]
    if len(found) == 1:
        return found[0]
    what = "several files fit" if found else "no such file or folder" if not place.exists() else f"no {split} file in"
    raise TaskError(f"{task}: {what} {place}; {both_ways(task, hub_id)}")


def both_ways(task: str, hub_id: str) -> str:
    return (
        f"get the data by `hf download --repo-type dataset {hub_id}` (or a machine that reaches the hub), "
        f"or give your copy: --data_path {task}=FOLDER_OR_FILE ({', '.join(SUFFIXES)})"
    )


def read_rows(path: Path) -> list[Row]:
    """The rows of a .jsonl, .json or .parquet file, gzipped or not; TaskError where the file is damaged."""
    try:
        if path.name.endswith(".parquet"):
            import pyarrow.parquet

            return pyarrow.parquet.read_table(path).to_pylist()
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.name.endswith(".gz") else data).decode()
        if path.name.removesuffix(".gz").endswith(".json"):
            return _json_rows(json.loads(text))
        return [
            json.loads(line) for line in text.split("\n") if line.strip()
        ]  # not splitlines: U+2028 may stand in a text
    except (OSError, EOFError, ValueError) as error:  # ValueError: JSON, Unicode and Arrow's own
        raise TaskError(f"{path} cannot be read: {type(error).__name__}: {' '.join(str(error).split())}") from error


def _json_rows(value: Any) -> list[Row]:
    """A list of rows, or the `Data` list of the official TriviaQA files."""
    rows = value.get("Data") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise ValueError("expected a list of rows")
    return rows


def _data_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name.endswith(SUFFIXES)) if folder.is_dir() else []


def _candidates(place: Path, split: str) -> list[Path]:
    """Files called after the split, the exact name first: test.jsonl before main-test-00000.parquet."""
    files = _data_files(place)
    exact = [path for path in files if path.name.partition(".")[0] == split]
    return exact[:1] or [path for path in files if split in path.name.replace("_", "-").partition(".")[0].split("-")]


def _from_hub(task: str, split: str, hub_id: str, config_name: str | None) -> list[Row]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        return [dict(row) for row in load_dataset(hub_id, config_name, split=split)]
    except (OSError, ValueError, DatasetsError) as error:  # no network, no such dataset, no such configuration or split
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise TaskError(f"{task}: {hub_id} cannot be loaded here ({reason}); {both_ways(task, hub_id)}") from error
