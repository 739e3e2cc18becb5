"""Whether what a program printed is what was expected, by the rules that problem sets use.

    tokens   words separated by white space, wherever the lines break (Codeforces)
    lines    the same, line by line; blank lines at the end and white space at the ends of lines do not count (APPS,
             LiveCodeBench)
    exact    character for character

With a tolerance, words that are numbers on both sides may differ by so much, absolutely or relatively, unless both are
whole. Pure functions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable


def matches(printed: str, expected: str, comparison: str, float_tolerance: float | None) -> bool:
    """Whether `printed` is right."""
    return _RULES[comparison](printed, expected, float_tolerance)


def _by_tokens(printed: str, expected: str, tolerance: float | None) -> bool:
    found, wanted = printed.split(), expected.split()
    return len(found) == len(wanted) and all(_same(one, two, tolerance) for one, two in zip(found, wanted, strict=True))


def _by_lines(printed: str, expected: str, tolerance: float | None) -> bool:
    found, wanted = printed.rstrip().split("\n"), expected.rstrip().split("\n")
    return len(found) == len(wanted) and all(
        _by_tokens(one, two, tolerance) for one, two in zip(found, wanted, strict=True)
    )


def _exactly(printed: str, expected: str, tolerance: float | None) -> bool:
    return printed == expected


def _same(printed: str, wanted: str, tolerance: float | None) -> bool:
    if printed == wanted or tolerance is None:
        return printed == wanted
    one, two = _number(printed), _number(wanted)
    if one is not None and two is not None and _INTEGER.fullmatch(printed) and _INTEGER.fullmatch(wanted):
        return int(printed) == int(wanted)  # a tolerance is for real numbers: 10**9 + 7 is not 10**9 + 8
    return one is not None and two is not None and math.isclose(one, two, rel_tol=tolerance, abs_tol=tolerance)


def _number(word: str) -> float | None:
    """The number that `word` is, if it is a finite one written in the ordinary way."""
    if len(word) > 400 or not word.isascii() or "_" in word:
        return None
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


_INTEGER = re.compile(r"[-+]?\d+")
_RULES: dict[str, Callable[[str, str, float | None], bool]] = {
    "tokens": _by_tokens,
    "lines": _by_lines,
    "exact": _exactly,
}
