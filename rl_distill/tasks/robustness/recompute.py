"""A GSM8K problem with one number changed, its answer computed anew from the calculator marks of its solution.

`<<48/2=24>>` states each step. A row is changed only where every literal of every step is accounted for: a result of an
earlier step, a number of the question, or a constant such as 100 or 7. It will not guess: most rows are refused.
"""

from __future__ import annotations

import ast
import operator
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

MARK = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")
NUMBER = re.compile(r"(?<![\w.,/])\d[\d,]*(?:\.\d+)?(?![\w%/]|[.,]\d|-\w| ?percent| ?(?:am|pm|AM|PM|a\.m|p\.m)\b|:)")
LITERAL = re.compile(r"\d+\.?\d*|\.\d+")
WORD_NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "twice": 2, "half": 2, "double": 2, "triple": 3, "thrice": 3, "third": 3, "quarter": 4,
    "dozen": 12, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "hundred": 100,
}  # fmt: skip
CONSTANTS = frozenset(Fraction(n) for n in (0, 1, 2, 3, 4, 7, 10, 12, 16, 24, 30, 31, 52, 60, 100, 365, 1000, 3600))
"""Literals of steps that no question need state; a number of the question with such a value is never changed."""
BRANCHING = re.compile(
    r"\b(?:choos\w*|chose|choice|cheap\w*|better|best|whichever|either|maximum|minimum|at (?:least|most)|exceed\w*|"
    r"overtime|limit\w*|round\w*|enough|beyond|after the first|over \d|more than \d|less than \d|up to|which)\b",
    re.IGNORECASE,
)
"""Signs of a problem whose steps depend on how its numbers compare: another number may need other steps."""
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


@dataclass(frozen=True)
class Changed:
    """The question with `old` written as `new`, its steps computed anew, and their last result, the answer."""

    question: str
    steps: tuple[str, ...]
    answer: str
    old: str
    new: str


def value_of(expression: str, literals: Mapping[int, Fraction] | None = None) -> Fraction | None:
    """The value of + - * / and brackets over numbers; `literals` replaces those by their place. None of anything else.

    Nothing is evaluated by Python: the syntax tree is walked.
    """
    try:
        tree = ast.parse(expression.replace(",", "").replace("$", "").strip(), mode="eval").body
        places = iter(range(len(LITERAL.findall(expression))))
        return _value(tree, places, literals or {})
    except (SyntaxError, ValueError, ZeroDivisionError, StopIteration, RecursionError, MemoryError):
        return None


def _value(node: ast.expr, places: Iterator[int], literals: Mapping[int, Fraction]) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        place = next(places)
        return literals.get(place, Fraction(str(node.value)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = _value(node.operand, places, literals)
        return -inner if isinstance(node.op, ast.USub) else inner
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = _value(node.left, places, literals), _value(node.right, places, literals)
        return OPERATORS[type(node.op)](left, right)
    raise ValueError(ast.dump(node)[:40])


@dataclass(frozen=True)
class Step:
    """An expression, its value, and by place of literal where that comes from: a step's number, or -1 the question."""

    expression: str
    value: Fraction
    sources: Mapping[int, int]


def steps_of(question: str, answer: str) -> list[Step] | None:
    """The steps of a solution, None where one is wrong, unexplained, ambiguous or unused, or the last is no answer."""
    given = {Fraction(n.replace(",", "")) for n in NUMBER.findall(question)}
    spoken = {Fraction(WORD_NUMBERS[word]) for word in re.findall(r"[a-z]+", question.lower()) if word in WORD_NUMBERS}
    body, _, final = answer.rpartition("####")
    steps: list[Step] = []
    for expression, stated in MARK.findall(body):
        value, said = value_of(expression), value_of(stated)
        if value is None or value != said:
            return None
        sources = _sources(expression, [step.value for step in steps], given, spoken)
        if sources is None:
            return None
        steps.append(Step(expression.replace(",", "").replace("$", ""), value, sources))
    used = {source for step in steps for source in step.sources.values()}
    if not steps or steps[-1].value != value_of(final) or not used.issuperset(range(len(steps) - 1)):
        return None
    return steps


def _sources(
    expression: str, results: list[Fraction], given: set[Fraction], spoken: set[Fraction]
) -> dict[int, int] | None:
    """By place of the literal; a literal that is a result and a number of the question is ambiguous, hence None."""
    sources = {}
    for place, literal in enumerate(LITERAL.findall(expression.replace(",", ""))):
        value = Fraction(literal)
        from_steps = [i for i, result in enumerate(results) if result == value]
        if len(from_steps) > 1 or (from_steps and value in given | spoken | CONSTANTS):
            return None
        if from_steps:
            sources[place] = from_steps[0]
        elif value in given:
            sources[place] = -1
        elif value not in spoken | CONSTANTS:
            return None
    return sources


def changed_number(question: str, answer: str, draw: random.Random) -> Changed | None:
    """The problem with another number, None where no number of it can be changed for certain.

    The number stands once in the question, is no result, no constant and no number word; the steps keep being whole
    where they were, and keep their sign.
    """
    steps = steps_of(question, answer)
    if steps is None or BRANCHING.search(question):
        return None
    found = NUMBER.findall(question)
    results = {step.value for step in steps}
    free = [n for n in found if found.count(n) == 1 and _is_free(n, question, results, steps)]
    draw.shuffle(free)
    for old in free:
        values = _others(Fraction(old.replace(",", "")), draw)
        for value in values:
            again = _again(steps, Fraction(old.replace(",", "")), value)
            if again is not None:
                new = str(value)
                text = re.sub(rf"(?<![\w.,/]){re.escape(old)}(?![\w%/]|[.,]\d)", new, question, count=1)
                return Changed(text, tuple(again[0]), again[1], old, new)
    return None


def _is_free(number: str, question: str, results: set[Fraction], steps: list[Step]) -> bool:
    value = Fraction(number.replace(",", ""))
    words = {WORD_NUMBERS[word] for word in re.findall(r"[a-z]+", question.lower()) if word in WORD_NUMBERS}
    same = [n for n in LITERAL.findall(question.replace(",", "")) if Fraction(n) == value]
    uses = sum(
        Fraction(literal) == value and step.sources.get(place) == -1
        for step in steps
        for place, literal in enumerate(LITERAL.findall(step.expression))
    )
    is_plain = value.denominator == 1 and value not in CONSTANTS | results and value not in words
    return is_plain and len(same) == 1 and uses == 1


def _others(value: Fraction, draw: random.Random) -> list[Fraction]:
    """Up to 20 whole numbers from half to one and a half of the value, itself and the constants left out."""
    low, high = max(2, int(value / 2)), int(value * 3 / 2) + 3
    choice = [Fraction(n) for n in range(low, high) if n != value and Fraction(n) not in CONSTANTS]
    return draw.sample(choice, min(20, len(choice)))


def _again(steps: list[Step], old: Fraction, new: Fraction) -> tuple[list[str], str] | None:
    """(steps, answer) with `old` of the question replaced; None where the result is of another kind than before."""
    values: list[Fraction] = []
    lines = []
    for step in steps:
        literals = [Fraction(n) for n in LITERAL.findall(step.expression)]
        filled = {
            place: values[source] if source >= 0 else new
            for place, source in step.sources.items()
            if source >= 0 or literals[place] == old
        }
        value = value_of(step.expression, filled)
        if value is None or value <= 0 or (step.value > 0) != (value > 0):
            return None
        if (step.value.denominator == 1 and value.denominator != 1) or shown(value) is None:
            return None
        values.append(value)
        text = _filled(step.expression, filled)
        lines.append(f"{text} = <<{text}={shown(value)}>>{shown(value)}")
    return (lines, shown(values[-1]) or "") if values[-1] != steps[-1].value else None


def _filled(expression: str, literals: Mapping[int, Fraction]) -> str:
    """The expression with literals replaced by their place."""
    places = iter(range(len(LITERAL.findall(expression))))
    return LITERAL.sub(lambda m: shown(literals.get(next(places), Fraction(m[0]))) or m[0], expression)


def shown(value: Fraction) -> str | None:
    """A whole number or a decimal of at most four places; None of others."""
    if value.denominator == 1:
        return str(value.numerator)
    scaled = value * 10_000
    return f"{float(value):.4f}".rstrip("0") if scaled.denominator == 1 else None
