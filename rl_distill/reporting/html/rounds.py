"""The section about rounds of training (`rl-distill rounds`), above the comparison of their runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ...mining.round_report import HEADS, cells, summary

ROUNDS = "rounds.json"


def runs_of(folders: Sequence[Path]) -> list[Path]:
    """The folders, those of rounds replaced by the folders of their runs."""
    return [run for folder in folders for run in (_rounds(folder) or [folder])]


def _rounds(folder: Path) -> list[Path]:
    path = folder / ROUNDS
    numbers = [entry["round"] for entry in json.loads(path.read_text())["rounds"]] if path.is_file() else []
    return [folder / f"round_{number}" for number in numbers]


def section(folders: Sequence[Path]) -> str:
    """The table of each folder of rounds among these; nothing where there is none."""
    return "".join(table(folder) for folder in folders if _rounds(folder))


def table(folder: Path) -> str:
    found = json.loads((folder / ROUNDS).read_text())
    head = "".join(f"<th>{escape(words)}</th>" for words in HEADS)
    rows = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in cells(e)) + "</tr>" for e in found["rounds"])
    body = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    note = f'<p class="note">{escape(summary(found).replace("`", ""))}</p>'
    return f"<section><h2>Rounds: {escape(folder.resolve().name)}</h2>{body}{note}</section>"
