r"""What an equation says a value is: `x = 5`, `f(x) = x^2` and `12 + 6 = 18` name one, `2x = 10` and `|x| = 5` do not.

It may assume text from math_text.normalize. It cuts a text at its `=` only where that cannot change the answer.
It will not solve: an equation stays one.
"""

import re
from itertools import pairwise

from .math_exact import exact_value
from .math_structures import CLOSING, OPENING
from .math_units import MARK

Pairs = list[tuple[str, str]]

GREEK_OR_LETTER = (
    r"(?:\\(?:alpha|beta|gamma|delta|epsilon|varepsilon|theta|lambda|mu|nu|rho|sigma|tau|phi|varphi|omega"
    r"|Delta|Omega|ell)"
    r"(?![a-zA-Z])|[A-Za-z])"
)
ACCENTED = (
    rf"(?:\\(?:bar|hat|vec|dot|tilde|overline|widehat|overrightarrow|mathbf)\s*(?:\{{[A-Za-z]{{1,3}}\}}"
    rf"|[A-Za-z])|{GREEK_OR_LETTER})"
)
SUBSCRIPT = r"(?:_(?:\{[^{}=]{1,24}\}|\w)|'|\^\{?\\?(?:prime|circ|ast|\*)\}?|\^\{-1\}(?=\())"
SYMBOL = rf"{ACCENTED}{SUBSCRIPT}{{0,3}}"
CALL = (
    rf"(?:[a-zA-Z]|\\(?:phi|psi|varphi|sigma|tau|mu|zeta|Gamma)|Var|Cov|Pr|area|Area|perimeter|gcd|lcm"
    rf"|deg){SUBSCRIPT}{{0,2}}\s?[(\[][^()\[\]]{{1,30}}[)\]]"
)
VARIABLE_TIMES = re.compile(r"[a-eijklmnostu-z]\s?\((?![a-z0-9]\)|[A-Z]\)|[A-Z]\s?\\c[au]p)")
# x(x+1) is a product, x(t) a function and n(A) a number of elements
# The cosine of an angle has a name; that of an unknown x is one side of an equation.
ANGLE = (
    r"(?:\\(?:sin|cos|tan|cot|sec|csc)\s*(?:\\left)?\(?\s*(?:\\(?:theta|alpha|beta|gamma|phi|varphi)(?![a-zA-Z])"
    r"|(?:\\angle\s*)?[A-Z]{1,3})\s*(?:\\right)?\)?)"
)
GEOMETRY = (
    r"(?:m?\\(?:angle|triangle|measuredangle)\s?[A-Z]{1,4}|\|?[A-Z]{2,4}\|?|\[[A-Z]{3,6}\]|\\frac\{d[a-z]\}\{d[a-z]\})"
)
TUPLE = rf"\(\s*{SYMBOL}(?:\s*,\s*{SYMBOL})+\s*\)"
NAME = re.compile(rf"(?:{SYMBOL}|{CALL}|{ANGLE}|{GEOMETRY}|{TUPLE})")
WORD_NAME = re.compile(r"(?:[^\W\d_][^\W\d_'-]*[ ,:]*){1,8}")
WORD = re.compile(r"[^\W\d_]{2,}")
NO_NAME = frozenset([
    "not", "no", "if", "or", "and", "nor", "never", "isn", "than", "least", "most", "except", "twice", "thrice",
    "half", "double", "triple", "minus", "negative", "plus", "times", "square", "squared", "cube", "cubed", "root",
    "sqrt", "log", "ln", "exp", "sin", "cos", "tan", "unless", "when", "where", "either", "neither", "between",
    "over", "under", "cannot", "opposite", "inverse", "reciprocal", "wrong", "incorrect", "for", "mod", "divided",
    "multiplied", "without", "xyz", "abc", "lwh", "pqr", "abcd",
])  # fmt: skip
CONDITIONS = re.compile(r"\b(?:if|unless|when|where|whenever|or|not|for|but|and|given|while|except)\b")
VALUE_OPERATOR = re.compile(r"\\(?:lim|int|iint|oint|sum|prod|max|min|det|gcd|inf|sup)(?![a-z])")
COMMANDS = re.compile(r"\\(?!(?:theta|alpha|beta|gamma|lambda|phi|mu|sigma|omega)(?![a-zA-Z]))[a-zA-Z]+")
CONSTANTS = re.compile(r"(?<![A-Za-z\\])[ei](?![A-Za-z])")
UNIT_WORDS = re.compile(rf"{MARK}\S+|(?<![\\A-Za-z])[^\W\d_]{{3,}}\.?|\^\s?\{{?[23]\}}?(?=\s*$)")


def sides(text: str) -> list[str]:
    """The parts of a text between the `=` outside of all brackets; one part if there is none."""
    pieces, depth, start = [], 0, 0
    for index, character in enumerate(text):
        depth += (character in OPENING) - (character in CLOSING)
        if character == "=" and depth <= 0:
            pieces.append(text[start:index].strip())
            start = index + 1
    return [*pieces, text[start:].strip()]


def is_name(side: str) -> bool:
    """True if the side of an equation names what the other side is the value of: x, f(x), a_1, AB, "the total"."""
    side = side.replace(MARK, "").strip()
    if NAME.fullmatch(side):
        return not VARIABLE_TIMES.match(side) or side.startswith("\\")
    if VALUE_OPERATOR.match(side):
        return True
    words = WORD.findall(side)
    if not WORD_NAME.fullmatch(side) or not words or any(word.lower() in NO_NAME for word in words):
        return False
    return any(len(word) >= 3 or not word.isascii() for word in words)  # xy is a product


def value_named(text: str) -> tuple[str, Pairs] | None:
    """The value that a text with `=` states, and the pairs of sides that still have to be proven equal for that.

    None where it states none: an equation to be solved, a condition, or a chain of sides that are not equal.
    """
    parts = sides(text)
    if len(parts) < 2 or any(not part for part in parts[1:]) or CONDITIONS.search(text.replace(MARK, "")):
        return None
    if not parts[0] or is_name(parts[0]):
        checked = _unproven(parts[1:], named=True)
        return None if checked is None else (parts[-1], checked)
    if len(parts) == 2 and is_name(parts[1]):
        return parts[0], []
    checked = _unproven(parts, named=False)
    return None if checked is None else (parts[-1], checked)


def _unproven(chain: list[str], named: bool) -> Pairs | None:
    """Neighbours in a chain that algebra has to find equal; None if two are known to differ.

    named: the chain belongs to a name (V = lwh = 24), so that a step in other letters is taken as it stands.
    """
    pairs: Pairs = []
    for first, second in pairwise(chain):
        equal = _are_equal(first, second, named)
        if equal is False:
            return None
        if equal is None:
            pairs.append((first, second))
    return pairs


def _are_equal(first: str, second: str, named: bool) -> bool | None:
    values = [exact_value(part) for part in (first, second)]
    if None in values:
        values = [exact_value(UNIT_WORDS.sub(" ", part).replace("$", " ").strip()) for part in (first, second)]
    if None not in values:
        return values[0] == values[1]
    free = [re.search("[A-Za-z]", COMMANDS.sub(" ", CONSTANTS.sub(" ", part))) is not None for part in (first, second)]
    if named:
        return True if any(free) else None
    if VALUE_OPERATOR.search(first):
        return True
    return False if free[0] != free[1] or any(len(w) > 2 for w in WORD.findall(COMMANDS.sub(" ", first))) else None


def same_name(first: str, second: str) -> bool:
    """True if two names may stand for one thing: equal up to spaces and braces, or y and f(x)."""
    first, second = (re.sub(r"[\s{}\ue000]", "", name) for name in (first, second))
    if first == second:
        return True
    return {"y"} < {first, second} and any(re.fullmatch(r"[fgh]\(x\)", name) for name in (first, second))
