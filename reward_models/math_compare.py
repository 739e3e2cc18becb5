r"""Decides whether two written answers are equal in value: numbers, lists, sets, tuples, intervals, matrices, words.

It may assume extracted answers, the prediction first. What is decided here is exact; what needs algebra is handed on.
It will not evaluate: an unfinished calculation (`12+6`) is not the answer 18.
"""

import re
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache

from . import math_structures as structures
from .math_choices import same_choice
from .math_exact import exact_value
from .math_languages import CJK
from .math_numbers import Quantity, quantity, same_quantity
from .math_relations import is_name, same_name, sides, value_named
from .math_structures import Parts
from .math_text import normalize
from .math_units import MARK, UNIT, is_unit, same_unit, unit_name

MAX_ELEMENTS = 32
Pairs = list[tuple[str, str]]  # (prediction, gold), all of which a symbolic grader has to find equal
Decision = bool | Pairs

CHOICE = re.compile("[A-J]")
PLAIN = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,9})?")
RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|approx|sim|equiv|in|notin|subset|implies|to)(?![a-zA-Z])")
MEMBER = re.compile(r"[A-Za-z]\s*\\in(?![a-zA-Z])\s*")
WORDS = re.compile(rf"[^\W\d_]{{3,}}|[{CJK}]")
FUNCTIONS = frozenset([
    "sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "frac", "arcsin", "arccos", "arctan", "sinh",
    "cosh", "tanh", "lim", "max", "min", "det", "gcd", "lcm", "mod", "arg",
])  # fmt: skip
SYMBOLIC = re.compile(r"\\[a-zA-Z]+|\^|!|[A-Za-z]|sqrt")
UNFINISHED = re.compile(r"\\(?:times|cdot|div|pm)(?![a-zA-Z])")
UNIT_BEHIND = re.compile(rf"(?:(?<=[\d)}}!|\]])|(?<=\\pi)|(?<=\\infty)|\s|(?={MARK}))\s*(?P<unit>{UNIT.pattern})$")
CURRENCY_BEFORE = re.compile(r"^\\?([$€£])\s*(?=[\d\\(])")


def decide(prediction: str, gold: str, decimal_comma: bool = False) -> Decision:
    """True or False where text and exact numbers decide, else the pairs that remain for algebra."""
    if PLAIN.fullmatch(prediction) and PLAIN.fullmatch(gold):  # nearly every answer of GSM8K
        return Decimal(prediction) == Decimal(gold)
    left, right = _canonical(prediction, decimal_comma), _canonical(gold, decimal_comma)
    if not left or not right:
        return False
    if _spelling(left) == _spelling(right):
        return True
    return _compare(left, right)


@lru_cache(maxsize=4096)
def _canonical(answer: str, decimal_comma: bool = False) -> str:
    return normalize(answer, decimal_comma)


def _spelling(text: str) -> str:
    """The text without what does not change its meaning: spaces (not between digits), braces around one character."""
    text = re.sub(r"([_^])\s*\{\s*(\w)\s*\}", r"\1\2", text.replace(MARK, ""))
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", re.sub(r"\\(?=\s*[{}])", "", text))


def _compare(left: str, right: str) -> Decision:
    choice = same_choice(left, right, _compare) if CHOICE.fullmatch(right) else None
    if choice is not None:  # before "B: x = 3" is taken for an equation
        return choice
    named = _without_names(left, right)
    if named is None:
        return False
    left, right, unproven = named
    if unproven:
        return _all([unproven, _compare_values(left, right)])
    return _compare_values(left, right)


def _compare_values(left: str, right: str) -> Decision:
    if _spelling(left) == _spelling(right):
        return True
    choice = same_choice(left, right, lambda a, b: _compare(a, b))
    if choice is not None:
        return choice
    left_number, right_number = quantity(left), quantity(right)
    if left_number and right_number:
        return same_quantity(left_number, right_number)
    if bool(left_number) != bool(right_number):  # 276,000 is one number, whatever 276,000^2 looks like
        return _compare_rest(left, right, left_number, right_number)
    for structure in (structures.as_matrix, structures.as_union, structures.as_interval, structures.as_collection):
        left_parts, right_parts = structure(left), structure(right)
        if left_parts is not None and right_parts is not None:
            return _compare_parts(left_parts, right_parts, left, right)
    return _compare_rest(left, right, left_number, right_number)


def _compare_rest(left: str, right: str, left_number: Quantity | None, right_number: Quantity | None) -> Decision:
    """Neither two numbers nor two structures: words are compared as words, formulas are handed on."""
    if bool(RELATION.search(left)) != bool(RELATION.search(right)) or any(
        (mark in left) != (mark in right) for mark in (":", "'")
    ):
        return False
    if (structures.as_collection(left) is None) != (structures.as_collection(right) is None):
        return False
    units = _without_units(left, right)
    if units is not None:
        return units if isinstance(units, bool) else _compare(*units)
    left, right = _bare(left, left_number), _bare(right, right_number)
    if left_number is None and right_number is None and (_has_words(left) or _has_words(right)):
        return _same_words(left, right)
    if _has_words(left) or _has_words(right):
        return False
    exact = _exactly(left, right, left_number, right_number)
    if exact is not None:
        return exact
    if not (_is_symbolic(left) and _is_symbolic(right)) and not _closed_form(left, right, left_number, right_number):
        return _same_words(left, right)
    return False if _differ_in_case_only(left, right) else [(left, right)]


def _bare(text: str, number: Quantity | None) -> str:
    """The text without marks; a number with a unit ("243 ways") as the number alone."""
    return str(number.value) if number and not number.percent and _has_words(text) else text.replace(MARK, "")


def _without_units(left: str, right: str) -> tuple[str, str] | bool | None:
    """Both texts without the unit behind a formula (10\\pi cm); False if the units differ, None if there is none."""
    (left_value, left_unit), (right_value, right_unit) = _split_unit(left), _split_unit(right)
    if not left_unit and not right_unit:
        return None
    if not left_unit:
        left_value, left_unit = _split_unit(left, single=True)
    if not right_unit:
        right_value, right_unit = _split_unit(right, single=True)
    names = unit_name(left_unit), unit_name(right_unit)
    if names[0] and names[1] and not same_unit(names[0], names[1]):
        return False
    return left_value, right_value


def _split_unit(text: str, single: bool = False) -> tuple[str, str]:
    """A formula and the unit behind it ("" if none). single: also one letter, which may be a variable (10\\pi m)."""
    money = CURRENCY_BEFORE.match(text)
    if money:
        return text[money.end() :].strip(), money[1]
    if quantity(text):
        return text, ""
    for match in UNIT_BEHIND.finditer(text):
        value, unit = text[: match.start()].strip(), match["unit"]
        long = len(re.sub(r"[^\w]|\d", "", unit)) > 1 or unit.startswith(MARK) or single
        if (
            value
            and long
            and re.search(r"[\d)}!|\]]$|\\[a-z]+$|(?<![A-Za-z])[a-z]$", value)
            and is_unit(unit, attached=False)
        ):
            return value, unit
    return text, ""


def _exactly(left: str, right: str, left_number: Quantity | None, right_number: Quantity | None) -> bool | None:
    """Whether two rational formulas are equal; None where one of them is not, or the prediction is unfinished."""
    values = [
        number.value if number and not number.percent else exact_value(text)
        for text, number in ((left, left_number), (right, right_number))
    ]
    if values[0] is None or values[1] is None:
        return None
    if right_number and not left_number and not _closed_form(left, right, None, right_number):
        return False
    return values[0] == values[1]


def _closed_form(left: str, right: str, left_number: Quantity | None, right_number: Quantity | None) -> bool:
    """A number against a formula that may have its value (2^{10}, \\sqrt{324}); a sum or product of numbers may not."""
    formula = right if left_number else left
    if not (left_number or right_number):
        return False
    return re.search(r"\\[a-zA-Z]+|\^|!|[eip]", UNFINISHED.sub(" ", formula)) is not None


def _without_names(left: str, right: str) -> tuple[str, str, Pairs] | None:
    """Both sides without `x =` or `x \\in` in front, and what is unproven of a chain (`V = 2 * 3 = 6`) that was cut.

    None where one text is an equation or a condition and the other a value: they are not equal.
    """
    left, right = (MEMBER.sub("", text, count=1) if MEMBER.match(text) else text for text in (left, right))
    left, right = (
        _rounded(text) if not RELATION.search(other) else text for text, other in ((left, right), (right, left))
    )
    parts = sides(left), sides(right)
    if len(parts[0]) == len(parts[1]) == 1 or structures.is_list(left) or structures.is_list(right):
        return left, right, []
    if len(parts[0]) > 1 and len(parts[1]) > 1:
        return _two_equations(left, right, parts)
    named = value_named(left if len(parts[0]) > 1 else right)
    if named is None:
        return None if not (_has_words(left) and _has_words(right)) else (left, right, [])
    value, unproven = named
    return (value, right, unproven) if len(parts[0]) > 1 else (left, value, unproven)


def _rounded(text: str) -> str:
    r"""`x \approx 9` as `x = 9`, and `4\pi \approx 12.57` as the exact value that it begins with."""
    name, approx, value = text.partition("\\approx")
    if not approx or not name.strip() or not value.strip():
        return text
    if is_name(name.strip()):
        return f"{name.strip()} = {value.strip()}"
    return name.strip() if quantity(value) and _is_symbolic(name) else text


def _two_equations(left: str, right: str, parts: tuple[list[str], list[str]]) -> tuple[str, str, Pairs] | None:
    names = parts[0][0], parts[1][0]
    if not (is_name(names[0]) and is_name(names[1])):
        return left, right, []
    if not same_name(*names):
        return (left, right, []) if _has_words(left) or _has_words(right) else (_short(left), _short(right), [])
    values = value_named(left), value_named(right)
    if values[0] is None or values[1] is None:
        return left, right, []
    return values[0][0], values[1][0], values[0][1] + values[1][1]


def _short(chain: str) -> str:
    """First and last side of a chain of equal values."""
    parts = sides(chain)
    return f"{parts[0]} = {parts[-1]}"


def _compare_parts(left: Parts, right: Parts, left_text: str, right_text: str) -> Decision:
    (left_kind, left_items), (right_kind, right_items) = left, right
    if len(left_items) != len(right_items) or len(left_items) > MAX_ELEMENTS:
        return False
    in_order = structures.ordered(left_kind, right_kind)
    if in_order is None:
        return False
    if in_order:
        return _all(_compare(a, b) for a, b in zip(left_items, right_items, strict=True))
    return _match_unordered(left_items, right_items, left_text, right_text)


def _match_unordered(left: list[str], right: list[str], left_text: str, right_text: str) -> Decision:
    """Pair the elements off; one that has no exact partner but a possible one leaves the whole to algebra."""
    rest, undecided = list(right), False
    for item in left:
        decisions = [_compare(item, other) for other in rest]
        if True in decisions:
            rest.pop(decisions.index(True))
        elif any(isinstance(d, list) for d in decisions):
            undecided = True
        else:
            return False
    if not undecided:
        return True
    return [(_braces(left_text), _braces(right_text))]


def _all(decisions: Iterable[Decision]) -> Decision:
    pairs: Pairs = []
    for decision in decisions:
        if decision is False:
            return False
        if isinstance(decision, list):
            pairs += decision
    return pairs or True


def _has_words(text: str) -> bool:
    bare = re.sub(r"\\[a-zA-Z]+(?:\{[a-z]*matrix\})?", " ", text)
    return any(word.lower() not in FUNCTIONS for word in WORDS.findall(bare))


def _is_symbolic(text: str) -> bool:
    return SYMBOLIC.search(text) is not None


def _same_words(left: str, right: str) -> bool:
    """Equal up to case and punctuation."""
    if not (_has_words(left) and _has_words(right)):
        return False
    return _letters(left) == _letters(right) != ""


def _differ_in_case_only(left: str, right: str) -> bool:
    """True if the variables are the same letters in another case: 2X is not 2x (math-verify says it is)."""
    names = [set(re.findall("[A-Za-z]", re.sub(r"\\[a-zA-Z]+", " ", text))) for text in (left, right)]
    return names[0] != names[1] and {n.lower() for n in names[0]} == {n.lower() for n in names[1]}


def _letters(text: str) -> str:
    return " ".join(re.sub(r"[^\w%$.+-]", " ", text.casefold()).split())


def _braces(text: str) -> str:
    text = text.strip()
    return text if text.startswith(("{", "\\{")) else "\\{" + text + "\\}"
