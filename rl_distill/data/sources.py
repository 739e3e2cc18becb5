"""Rows of a split from wherever the user has them: files, folders, patterns, `save_to_disk` folders, the hub.

It may assume a name of the split. It will not change a row, and names the file and line of one that cannot be read.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import ConfigError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet", ".csv")
SAVED_DATASET, SAVED_SPLITS = "state.json", "dataset_dict.json"
"""What `Dataset.save_to_disk` and `DatasetDict.save_to_disk` leave in a folder."""


@dataclass(frozen=True)
class Row:
    """One row and where it is, such as `train.jsonl line 7`."""

    columns: dict[str, Any]
    place: str


def read_rows(source: str | Sequence[str], split: str, config_name: str | None = None) -> list[Row]:
    """The rows of a source, in the order of its files. ConfigError in one line where there is none or one is torn."""
    parts = [source] if isinstance(source, str) else list(source)
    rows = [row for part in parts for row in _one_source(part, split, config_name)]
    if not rows:
        raise ConfigError(f"data.{split}: {' '.join(parts)} holds no rows")
    return rows


def _one_source(source: str, split: str, config_name: str | None) -> list[Row]:
    path = Path(source).expanduser()
    if path.is_dir():
        return _of_folder(path, split)
    if any(sign in source for sign in "*?["):
        files = sorted(path.parent.glob(path.name)) if path.parent.is_dir() else []
        if not files:
            raise ConfigError(f"data.{split}: no file matches {source!r}")
        return [row for file in files for row in _of_file(file, split)]
    if source.endswith(SUFFIXES):
        if not path.is_file():
            raise ConfigError(f"data.{split}: file {source!r} does not exist")
        return _of_file(path, split)
    folder, colon, wanted = source.rpartition(":")
    if colon and Path(folder).expanduser().is_dir():
        return _of_folder(Path(folder).expanduser(), split, wanted)
    return _of_hub(source, split, config_name)


def _of_folder(folder: Path, split: str, wanted: str | None = None) -> list[Row]:
    """A folder of `save_to_disk`, of one split or several, or data files (those called after the split, or all)."""
    if (folder / SAVED_SPLITS).is_file():
        return _saved(folder / _split_of(folder, wanted or split, split), split)
    if (folder / SAVED_DATASET).is_file():
        return _saved(folder, split)
    files = sorted(file for file in folder.iterdir() if file.name.endswith(SUFFIXES))
    named = [file for file in files if (wanted or split) in file.name.replace("_", "-").partition(".")[0].split("-")]
    if not files or (wanted and not named):
        kinds = f"{wanted} file" if wanted else "file"
        raise ConfigError(
            f"data.{split}: the folder {str(folder)!r} holds no {kinds} of {', '.join(SUFFIXES)}, and no "
            "dataset written by save_to_disk"
        )
    return [row for file in named or files for row in _of_file(file, split)]


def _split_of(folder: Path, wanted: str, split: str) -> str:
    names = json.loads((folder / SAVED_SPLITS).read_text())["splits"]
    if wanted not in names:
        raise ConfigError(
            f"data.{split}: {str(folder)!r} has no split {wanted!r}; it has {', '.join(names)}: write "
            f"{folder}:{names[0]}"
        )
    return wanted


def _saved(folder: Path, split: str) -> list[Row]:
    from datasets import load_from_disk
    from datasets.exceptions import DatasetsError

    try:
        dataset = load_from_disk(str(folder))
        return [Row(dict(row), f"{folder} row {number}") for number, row in enumerate(dataset)]
    except (OSError, ValueError, KeyError, DatasetsError) as error:
        raise _unreadable(folder, split, error) from error


def _of_file(path: Path, split: str) -> list[Row]:
    name = path.name.removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(path).to_pylist()
            return [Row(row, f"{path} row {number}") for number, row in enumerate(rows)]
        if name.endswith(".csv"):
            from datasets import Dataset

            return [Row(dict(row), f"{path} row {number}") for number, row in enumerate(Dataset.from_csv(str(path)))]
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.name.endswith(".gz") else data).decode()
        return _json_rows(path, text, split) if name.endswith(".json") else _json_lines(path, text, split)
    except ConfigError:
        raise
    except Exception as error:  # Arrow, pandas, gzip, Unicode: every reader has errors of its own
        raise _unreadable(path, split, error) from error


def _json_lines(path: Path, text: str, split: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: U+2028 may stand in a text
        if not line.strip():
            continue
        place = f"{path} line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"data.{split}: {place} is no JSON ({error.msg} at column {error.colno}): mend or remove the line; was "
                "the file cut off while it was written?"
            ) from error
        if not isinstance(row, dict):
            raise ConfigError(f"data.{split}: {place} is {type(row).__name__}, not an object with columns")
        rows.append(Row(row, place))
    return rows


def _json_rows(path: Path, text: str, split: str) -> list[Row]:
    """A list of rows, an object with one such list, or, under the wrong name, JSON lines."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return _json_lines(path, text, split)
    lists = [item for item in value.values() if isinstance(item, list)] if isinstance(value, dict) else [value]
    if len(lists) != 1 or not all(isinstance(row, dict) for row in lists[0]):
        raise ConfigError(f"data.{split}: {path} must hold a list of objects")
    return [Row(row, f"{path} row {number}") for number, row in enumerate(lists[0])]


def _of_hub(source: str, split: str, config_name: str | None) -> list[Row]:
    from datasets import load_dataset

    name, _, wanted = source.partition(":")
    try:
        rows = load_dataset(name, config_name, split=wanted or split)
    except Exception as error:  # the hub client raises many kinds; all of them mean the data is not there
        raise ConfigError(
            f"data.{split}: cannot load {source!r} from the hub ({' '.join(str(error).split())[:200]}). Give `name` or "
            "`name:split`, or the path of a .jsonl, .parquet or .csv file or of a folder"
        ) from error
    return [Row(dict(row), f"{source} row {number}") for number, row in enumerate(rows)]


def _unreadable(path: Path, split: str, error: Exception) -> ConfigError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return ConfigError(f"data.{split}: {path} cannot be read ({reason}): is it whole, and of the kind its name says?")
