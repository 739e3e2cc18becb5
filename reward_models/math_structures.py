r"""Lists, sets, tuples, intervals, unions and matrices: their elements, and which structures may be the same thing.

It may assume text from math_text.normalize, at most 2,000 characters; every scan is linear in it.
It will not compare elements: that is math_compare.py.
"""

import re

from .math_languages import ANY_WORD

OPENING, CLOSING = "([{", ")]}"
MATRIX = re.compile(r"\\begin\s*\{([pbBvV]?matrix|array)\}(?:\{[lcr|]*\})?(.*)\\end\s*\{\1\}", re.DOTALL)

OR = re.compile(r"\ue000?(?:\bor\b|或者?|\boder\b|\bou\b|\bили\b|または|또는)|\\(?:lor|vee)(?![a-zA-Z])")

Parts = tuple[str, list[str]]  # what kind of structure ("()", "{}", "", "matrix 2x2", ...), and its elements


def ordered(left_kind: str, right_kind: str) -> bool | None:
    """Whether elements are compared in order; None if the two kinds never are the same thing."""
    if left_kind == right_kind:
        return left_kind not in ("{}", "", "union")
    kinds = {left_kind, right_kind}
    if kinds == {"{}", ""}:  # {1, 2} and "1, 2"
        return False
    return True if kinds == {"()", ""} else None  # (1, 2) and "1, 2"


def as_collection(text: str) -> Parts | None:
    text = (
        text.strip().replace("\\{", "{").replace("\\}", "}").replace("\\langle", "(").replace("\\rangle", ")").strip()
    )
    kind = ""
    if text and text[0] in OPENING and closes_at(text) == len(text) - 1:
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
        separator = (
            separator.replace(r"|,|", "|") if separator.startswith(r",\s+") else r",(?!(?<=\d,)\d{3}(?!\d))|;\s*"
        )  # 6,250
        separator = rf"(?:[,;]\s*)?{ANY_WORD}\s*|\s&\s|{separator}"
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


def is_list(text: str) -> bool:
    """True if the text has more than one element outside of brackets."""
    items = split_list(text)
    return items is not None and len(items) > 1


def closes_at(text: str) -> int:
    """Index of the bracket that closes the first one, of whatever shape: (1, 2] is an interval; -1 if none."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character in OPENING) - (character in CLOSING)
        if depth == 0:
            return index
    return -1


def as_interval(text: str) -> Parts | None:
    """An interval, or an inequality in one variable, as bracket kind and two ends; "(]" is (a, b]."""
    text = text.strip()
    if text and text[0] in "([" and text[-1] in ")]" and closes_at(text) == len(text) - 1:
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


def as_union(text: str) -> Parts | None:
    pieces = re.split(r"\\cup(?![a-zA-Z])", text)
    if len(pieces) == 1 and re.search(r"[<>]|\\[lg]e ", text):
        cases = [piece.strip() for piece in OR.split(text)]  # x < 1 or x > 2
        variables = {"".join(re.findall(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", case)) for case in cases}
        pieces = cases if len(variables) == 1 and all(as_interval(case) for case in cases) else pieces
    return ("union", [p.strip() for p in pieces]) if len(pieces) > 1 and all(p.strip() for p in pieces) else None


def as_matrix(text: str) -> Parts | None:
    match = MATRIX.fullmatch(text.strip())
    if match is None:
        return None
    rows = [row.split("&") for row in re.split(r"\\\\", match[2]) if row.strip()]
    if not rows or len({len(row) for row in rows}) != 1:
        return None
    shape = f"{'det' if match[1][0] in 'vV' else 'matrix'} {len(rows)}x{len(rows[0])}"
    return shape, [cell.strip() for row in rows for cell in row]
