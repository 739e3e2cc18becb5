r"""Decides whether two written answers are equal in value: numbers, lists, sets, tuples, intervals, matrices, words.

It may assume extracted answers. What is decided here is exact; what needs algebra is handed on as pairs.
It will not evaluate: an unfinished calculation (`12+6`) is not the answer 18.
"""

import re
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache

from .math_numbers import Quantity, quantity, same_quantity
from .math_text import normalize

MAX_ELEMENTS = 32
Pairs = list[tuple[str, str]]  # (prediction, gold), all of which a symbolic grader has to find equal
Decision = bool | Pairs

PLAIN = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,9})?")
RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|approx|sim|equiv|in|notin|subset)(?![a-zA-Z])")
ASSIGNED = re.compile(r"(?:[A-Za-z](?:_\{?\w{1,6}\}?|'|\([a-z0-9]\))?|[A-Za-z]{2,12})\s*=(?!=)\s*")
MEMBER = re.compile(r"[A-Za-z]\s*\\in(?![a-zA-Z])\s*")
WORDS = re.compile(r"[A-Za-z]{3,}")
FUNCTIONS = frozenset([
    "sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "frac", "arcsin", "arccos", "arctan", "sinh",
    "cosh", "tanh", "lim", "max", "min", "det",
])  # fmt: skip
SYMBOLIC = re.compile(r"\\[a-zA-Z]+|\^|!|[A-Za-z]|sqrt")
CHOICE = re.compile(r"\(?([A-Z])\)?[.:]?")  # (B), B, B) are one answer
OPENING, CLOSING = "([{", ")]}"
MATRIX = re.compile(r"\\begin\s*\{([pbBvV]?matrix|array)\}(?:\{[lcr|]*\})?(.*)\\end\s*\{\1\}", re.DOTALL)


def decide(prediction: str, gold: str) -> Decision:
    """True or False where text and exact numbers decide, else the pairs that remain for algebra."""
    if PLAIN.fullmatch(prediction) and PLAIN.fullmatch(gold):  # nearly every answer of GSM8K
        return Decimal(prediction) == Decimal(gold)
    left, right = _canonical(prediction), _canonical(gold)
    if not left or not right:
        return False
    if _spelling(left) == _spelling(right):
        return True
    return _compare(left, right)


@lru_cache(maxsize=4096)
def _canonical(answer: str) -> str:
    return normalize(answer)


def _spelling(text: str) -> str:
    """The text without what does not change its meaning: spaces (not between digits), braces around one character."""
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", re.sub(r"([_^])\s*\{(\w)\}", r"\1\2", text))


def _compare(left: str, right: str) -> Decision:
    left, right = _without_names(left, right)
    if _spelling(left) == _spelling(right):
        return True
    left_choice, right_choice = CHOICE.fullmatch(left), CHOICE.fullmatch(right)
    if left_choice and right_choice:
        return left_choice[1] == right_choice[1]
    left_number, right_number = quantity(left), quantity(right)
    if left_number and right_number:
        return same_quantity(left_number, right_number)
    for structure in (_as_matrix, _as_union, _as_interval, _as_collection):
        left_parts, right_parts = structure(left), structure(right)
        if left_parts is not None and right_parts is not None:
            return _compare_parts(left_parts, right_parts, left, right)
    return _compare_rest(left, right, left_number, right_number)


def _compare_rest(left: str, right: str, left_number: Quantity | None, right_number: Quantity | None) -> Decision:
    """Neither two numbers nor two structures: words are compared as words, formulas are handed on."""
    if bool(RELATION.search(left)) != bool(RELATION.search(right)) or (":" in left) != (":" in right):
        return False
    if (_as_collection(left) is None) != (_as_collection(right) is None):
        return False
    if left_number is None and right_number is None and (_has_words(left) or _has_words(right)):
        return _same_words(left, right)
    if _has_words(left) or _has_words(right):
        return False
    if not (_is_symbolic(left) and _is_symbolic(right)) and not _closed_form(left, left_number, right, right_number):
        return _same_words(left, right)
    return False if _differ_in_case_only(left, right) else [(left, right)]


def _closed_form(left: str, left_number: Quantity | None, right: str, right_number: Quantity | None) -> bool:
    """A number against a formula that may have its value (2^{10}, \\sqrt{324}); a sum or product of numbers may not."""
    formula = right if left_number else left
    if not (left_number or right_number) or "**" in formula:
        return False
    return (
        re.search(r"\\[a-zA-Z]+|\^|!|[eip]", re.sub(r"\\(?:times|cdot|div|pm)(?![a-zA-Z])", " ", formula)) is not None
    )


def _without_names(left: str, right: str) -> tuple[str, str]:
    """Both sides without `x =` or `x \\in` in front, and without the steps of a calculation before its last `=`."""
    left, right = (MEMBER.sub("", text, count=1) if MEMBER.match(text) else text for text in (left, right))
    left_name, right_name = ASSIGNED.match(left), ASSIGNED.match(right)
    if left_name and right_name and left.count("=") == right.count("=") == 1:
        same = _spelling(left_name[0]) == _spelling(right_name[0])
        return (left[left_name.end() :], right[right_name.end() :]) if same else (left, right)
    if "," in left or "," in right or RELATION.search(left + right):
        left_end = left_name.end() if left_name and "=" not in right else 0
        right_end = right_name.end() if right_name and "=" not in left else 0
        return left[left_end:], right[right_end:]
    left_last, right_last = (_last_side(text) for text in (left, right))
    if ("=" in left) != ("=" in right):
        return left_last or left, right_last or right
    return left, right


def _last_side(text: str) -> str:
    before, _, last = text.rpartition("=")
    return before.strip() if re.fullmatch(r"\s*[A-Za-z]\s*", last) and "=" not in before else last.strip()


Parts = tuple[str, list[str]]  # what kind of structure ("()", "{}", "", "matrix 2x2", ...), and its elements


def _compare_parts(left: Parts, right: Parts, left_text: str, right_text: str) -> Decision:
    (left_kind, left_items), (right_kind, right_items) = left, right
    if len(left_items) != len(right_items) or len(left_items) > MAX_ELEMENTS:
        return False
    ordered = _ordered(left_kind, right_kind)
    if ordered is None:
        return False
    if ordered:
        return _all(_compare(a, b) for a, b in zip(left_items, right_items, strict=True))
    return _match_unordered(left_items, right_items, left_text, right_text)


def _ordered(left_kind: str, right_kind: str) -> bool | None:
    """Whether elements are compared in order; None if the two kinds never are the same thing."""
    if left_kind == right_kind:
        return left_kind not in ("{}", "", "union")
    kinds = {left_kind, right_kind}
    if kinds == {"{}", ""}:  # {1, 2} and "1, 2"
        return False
    return True if kinds == {"()", ""} else None  # (1, 2) and "1, 2"


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


def _as_collection(text: str) -> Parts | None:
    text = (
        text.strip().replace("\\{", "{").replace("\\}", "}").replace("\\langle", "(").replace("\\rangle", ")").strip()
    )
    kind = ""
    if text and text[0] in OPENING and _closes_at(text) == len(text) - 1:
        kind, text = text[0] + text[-1], text[1:-1]
    items = split_list(text, words=kind == "")
    if items is None:
        return None
    if kind == "" and len(items) == 1 and text.count("\\pm") == 1:
        items = [text.replace("\\pm", sign).strip().removeprefix("+ ") for sign in "+-"]
    return (kind, items) if len(items) > 1 or kind == "{}" else None


def split_list(text: str, words: bool = True) -> list[str] | None:
    """The elements of a list at depth 0 of its brackets; None if the brackets do not match or an element is empty."""
    separator = r",\s+|;\s*" if re.search(r",\s", text) else r",|;\s*"
    if words:
        separator = rf"(?:,\s*)?\b(?:and|or)\b\s*|{separator}"
    pieces, depth, last = [], 0, 0
    for token in re.finditer(rf"\\[a-zA-Z]+|[\[({{]|[\])}}]|{separator}", text):
        if token[0] in OPENING:
            depth += 1
        elif token[0] in CLOSING:
            depth -= 1
            if depth < 0:
                return None
        elif depth == 0 and not token[0].startswith("\\"):
            pieces.append(text[last : token.start()].strip())
            last = token.end()
    pieces.append(text[last:].strip())
    return pieces if depth == 0 and all(pieces) else None


def _closes_at(text: str) -> int:
    """Index of the bracket that closes the first one, of whatever shape: (1, 2] is an interval; -1 if none."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character in OPENING) - (character in CLOSING)
        if depth == 0:
            return index
    return -1


INEQUALITY = re.compile(r"([^<>\\]*(?:\\(?!le|ge)[^<>\\]*)*)(<|>|\\le |\\ge )")


def _as_interval(text: str) -> Parts | None:
    """An interval, or an inequality in one variable, as bracket kind and two ends; "(]" is (a, b]."""
    text = text.strip()
    if text and text[0] in "([" and text[-1] in ")]" and _closes_at(text) == len(text) - 1:
        ends = split_list(text[1:-1], words=False)
        return (text[0] + text[-1], ends) if ends and len(ends) == 2 else None
    pieces = re.split(r"(<|>|\\le |\\ge )", text)
    if len(pieces) == 3:
        return _one_sided(*(p.strip() for p in pieces))
    if len(pieces) == 5:
        return _two_sided([p.strip() for p in pieces])
    return None


def _one_sided(left: str, relation: str, right: str) -> Parts | None:
    if re.fullmatch(r"[a-zA-Z]", right) and not re.fullmatch(r"[a-zA-Z]", left):
        left, right, relation = right, left, {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}[relation]
    if not re.fullmatch(r"[a-zA-Z]", left) or not right:
        return None
    if relation in ("<", "\\le"):
        return "(" + (")" if relation == "<" else "]"), ["-\\infty", right]
    return ("(" if relation == ">" else "[") + ")", [right, "\\infty"]


def _two_sided(pieces: list[str]) -> Parts | None:
    low, first, variable, second, high = pieces
    if first in (">", "\\ge") and second in (">", "\\ge"):
        low, high, first, second = high, low, second, first
    elif first not in ("<", "\\le") or second not in ("<", "\\le"):
        return None
    if not re.fullmatch(r"[a-zA-Z]", variable) or not low or not high:
        return None
    return ("(" if first in "<>" else "[") + (")" if second in "<>" else "]"), [low, high]


def _as_union(text: str) -> Parts | None:
    pieces = re.split(r"\\cup(?![a-zA-Z])", text)
    return ("union", [p.strip() for p in pieces]) if len(pieces) > 1 and all(p.strip() for p in pieces) else None


def _as_matrix(text: str) -> Parts | None:
    match = MATRIX.fullmatch(text.strip())
    if match is None:
        return None
    rows = [row.split("&") for row in re.split(r"\\\\", match[2]) if row.strip()]
    if not rows or len({len(row) for row in rows}) != 1:
        return None
    shape = f"{'det' if match[1][0] in 'vV' else 'matrix'} {len(rows)}x{len(rows[0])}"
    return shape, [cell.strip() for row in rows for cell in row]


def _has_words(text: str) -> bool:
    return any(
        word.lower() not in FUNCTIONS for word in WORDS.findall(re.sub(r"\\[a-zA-Z]+(?:\{[a-z]*matrix\})?", " ", text))
    )


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
