"""Rules that a row must meet before anything is compared or graded: each names itself when it refuses one.

The kinds are those of C4 (Raffel et al. 2020) and Gopher (Rae et al. 2021, appendix A), with limits for prompts rather
than web pages. It will not judge what a text says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config.ranges import ranged
from .texts import gold_of, prompt_text, tests_of

BROKEN = re.compile("[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\u00c3[\u0080-\u00bf]|\u00e2\u20ac|[\ud800-\udfff]")
"""Replacement and control characters, UTF-8 read as Latin-1, lone surrogates."""
SCRIPTS = {
    "latin": "A-Za-z\u00c0-\u024f",
    "greek": "\u0370-\u03ff",
    "cyrillic": "\u0400-\u052f",
    "arabic": "\u0600-\u06ff",
    "devanagari": "\u0900-\u097f",
    "bengali": "\u0980-\u09ff",
    "telugu": "\u0c00-\u0c7f",
    "thai": "\u0e00-\u0e7f",
    "cjk": "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af",
}


@dataclass(frozen=True)
class Rules:
    """Limits of the rules. Lengths are in characters and words of the prompt."""

    min_words: int = ranged(3, "[0, inf)")
    """Prompts of fewer words are left out; a text without spaces counts a word for each two characters."""
    max_characters: int = ranged(20_000, "[1, inf)")
    """Longer prompts are left out."""
    min_letters: float = ranged(0.4, "[0, 1]")
    """Share of the prompt's visible characters that must be letters, digits or arithmetic signs."""
    max_repeated_lines: float = ranged(0.3, "[0, 1]")
    """Share of lines that repeat an earlier one (Gopher: 0.3); texts of fewer than four lines are exempt."""
    needs_gold: bool = True
    """A row with neither an answer nor tests is left out. False for free text."""
    script: str | None = None
    """Keep rows of which most letters are of this script (latin, cyrillic, cjk, ...)."""


def refused(row: Mapping[str, Any], rules: Rules, column: str | None = None) -> str | None:
    """The name of the first rule that the row breaks, None where it meets them all."""
    text = prompt_text(row, column)
    if text is None:
        return "no_prompt"
    if not text.strip():
        return "empty_prompt"
    if BROKEN.search(text) or BROKEN.search(gold_of(row) or ""):
        return "broken_text"
    if len(text) > rules.max_characters:
        return "too_long"
    if tests_of(row) is None:
        found = _of_prose(text, rules)
        if found:
            return found
        if rules.needs_gold and gold_of(row) is None:
            return "no_gold"
    return None


def _of_prose(text: str, rules: Rules) -> str | None:
    if num_words(text) < rules.min_words:
        return "too_short"
    visible = [character for character in text if not character.isspace()]
    known = sum(character.isalnum() or character in "+-*/=<>.,$%()^" for character in visible)
    if known < rules.min_letters * len(visible):
        return "mostly_symbols"
    if repeated_lines(text) > rules.max_repeated_lines:
        return "repeated_lines"
    if rules.script and not is_of_script(text, rules.script):
        return "other_script"
    return None


def num_words(text: str) -> int:
    """Words between spaces; scripts without spaces count two characters as a word."""
    dense = len(re.findall(f"[{SCRIPTS['cjk']}{SCRIPTS['thai']}]", text))
    return len(text.split()) + dense // 2


def repeated_lines(text: str) -> float:
    """Share of the lines, empty ones aside, that an earlier line has said; 0 of fewer than four."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return 0.0 if len(lines) < 4 else sum(n - 1 for n in Counter(lines).values()) / len(lines)


def is_of_script(text: str, script: str) -> bool:
    """Whether more than half of the letters are of the script; true of a text without letters."""
    letters = [character for character in text if character.isalpha()]
    own = re.compile(f"[{SCRIPTS[script]}]")
    return not letters or sum(own.match(letter) is not None for letter in letters) * 2 > len(letters)
