"""What a row says: its prompt, gold answer and tests, and its text in one normal form.

It may assume a dict of columns. It changes text columns only: code keeps every character.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from ..evals.decontamination import TEXT_COLUMNS

Row = dict[str, Any]
MESSAGES = "messages"
ANSWERS = ("answer", "solution", "completion", "response", "output", "context")
"""Columns of text beside the prompt's. Whatever is in neither is left as it is: ids, tests, programs, lists."""
TESTS = ("test", "tests", "test_list", "test_cases", "input_output", "public_test_cases", "private_test_cases")
PROGRAMS = ("canonical_solution", "code")
"""Where the sets that give one have the program that solves the problem."""
UNSEEN = re.compile("[\u200b\u200c\u200d\u2060\ufeff\u00ad]")
SPACES = re.compile("[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]+")
FENCED = re.compile(r"(```.*?(?:```|\Z))", re.DOTALL)
JOINERS = re.compile("[\u200c\u200d]")


def normalized(text: str) -> str:
    """NFC, one kind of line end and of space, no invisible characters, at most one empty line; code fences as they are.

    Lines that begin with a tab or four spaces keep their spaces: they may be code. Joiners stay in texts beyond Latin,
    Greek and Cyrillic, where they are part of the spelling.
    """
    parts = FENCED.split(text.replace("\r\n", "\n").replace("\r", "\n"))
    bare = [part if i % 2 else _without_invisible(part) for i, part in enumerate(parts)]
    parts = FENCED.split("".join(bare).strip())
    return "".join(part if i % 2 else _prose(part) for i, part in enumerate(parts)).strip()


def _without_invisible(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    spelling = any(ord(character) > 0x52F and character.isalpha() for character in text)
    text = re.sub(UNSEEN, lambda found: found[0] if spelling and JOINERS.match(found[0]) else "", text)
    return unicodedata.normalize("NFC", text)  # what was apart may have met


def _prose(text: str) -> str:
    lines = [line.rstrip() if line.startswith(("\t", "    ")) else SPACES.sub(" ", line) for line in text.split("\n")]
    ended = [line.rstrip() for line in lines[:-1]] + lines[-1:]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(ended))


def prompt_column(row: Mapping[str, Any], wanted: str | None = None) -> str | None:
    """The column with the prompt: the wanted one, or the first known one that is there, or `messages`."""
    names = (wanted,) if wanted else (*TEXT_COLUMNS, MESSAGES)
    return next((name for name in names if row.get(name) is not None), None)


def prompt_text(row: Mapping[str, Any], wanted: str | None = None) -> str | None:
    """The words of the prompt; of messages all turns, one below the other. None where it is no text."""
    column = prompt_column(row, wanted)
    value = row[column] if column else None
    if isinstance(value, list):
        turns = [item.get("content") for item in value if isinstance(item, Mapping)]
        return "\n".join(turn for turn in turns if isinstance(turn, str)) if turns else None
    return value if isinstance(value, str) else None


def tests_of(row: Mapping[str, Any]) -> str | None:
    """The tests of a code row as one text, None where it is no code."""
    found = {name: row[name] for name in TESTS if row.get(name)}
    return json.dumps(found, sort_keys=True, default=str) if found else None


def gold_of(row: Mapping[str, Any]) -> str | None:
    """The gold answer of a row that is no code, None where there is none."""
    answer = row.get("answer")
    return None if answer is None or not str(answer).strip() else str(answer)


def normalized_row(row: Row, wanted: str | None = None) -> Row:
    """The row with its text columns in normal form. The prompt of a code row is code."""
    names = set(ANSWERS) | {prompt_column(row, wanted), MESSAGES}
    if tests_of(row) is not None:
        return dict(row)
    return {name: _normalized_value(value) if name in names else value for name, value in row.items()}


def _normalized_value(value: Any) -> Any:
    if isinstance(value, str):
        return normalized(value)
    if isinstance(value, list):
        return [
            item | {"content": normalized(item["content"])}
            if isinstance(item, dict) and isinstance(item.get("content"), str)
            else item
            for item in value
        ]
    return value
