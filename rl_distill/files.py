"""Files that are whole or not there, and files of records that may end in a torn line. Standard library only."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any


def write_atomically(path: Path, text: str) -> None:
    """`path` holds the old text or the new one, never a part of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def finite(value: Any) -> Any:
    """The value with null for each NaN and infinity in it, which JSON does not know."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_line(record: dict[str, Any]) -> str:
    """The record as a line of a .jsonl file that every JSON reader takes; see `finite`."""
    return json.dumps(finite(record), allow_nan=False) + "\n"


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The records of a file; none where it is absent. A torn last line (a crash while writing) is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
