"""Files that are whole or not there, and files of records that may end in a torn line. Standard library only."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_atomically(path: Path, text: str) -> None:
    """`path` holds the old text or the new one, never a part of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


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
