"""Demo math family: word problems with several steps, a chain of thought and a final ``#### 42``.

Assumes only the standard library. A problem is a pure function of a `random.Random`; it never looks at a split.
"""

from __future__ import annotations

import random

from ..types import Problem

NAMES = ("Tom", "Mia", "Ann", "Ben", "Zoe", "Sam", "Eva", "Max")
ITEMS = ("books", "coins", "cards", "pens", "apples", "shells", "stamps", "balls")
GAINS = ("{b} gives {a} {n} more.", "{a} buys {n} more.", "{a} finds {n} {items}.")
LOSSES = ("{a} loses {n}.", "{a} gives {n} to {b}.", "{a} sells {n} {items}.")
GROWTHS = ("{b} makes it {n} times as many.", "Now {a} gets {n} times as many.")
HALVES = ("{a} keeps one half.", "{b} takes one half.")
MAX_VALUE = 99


def _step(rng: random.Random, value: int) -> tuple[str, str, int]:
    """One change of `value`: (sentence template, equation, new value); every value stays within 0..MAX_VALUE.

    Adding and taking away come up about three times as often as multiplying and halving.
    """
    operand, factor = rng.randint(2, 9), rng.randint(2, 3)
    moves: list[tuple[tuple[str, ...], int, str, int]] = []
    if value + operand <= MAX_VALUE:
        moves += 3 * [(GAINS, operand, f"{value}+{operand}", value + operand)]
    if value >= operand:
        moves += 3 * [(LOSSES, operand, f"{value}-{operand}", value - operand)]
    if 0 < value * factor <= MAX_VALUE:
        moves.append((GROWTHS, factor, f"{value}*{factor}", value * factor))
    if value > 0 and value % 2 == 0:
        moves.append((HALVES, 2, f"{value}/2", value // 2))
    templates, number, left, result = rng.choice(moves)
    return rng.choice(templates).replace("{n}", str(number)), f"{left}={result}", result


def make_word_problem(rng: random.Random, min_steps: int = 2, max_steps: int = 3) -> Problem:
    """A problem in GSM8K's format; its key (the equations) identifies it whatever the names in the story."""
    a, b = rng.sample(NAMES, 2)
    items = rng.choice(ITEMS)
    value = rng.randint(3, 60)
    sentences, equations = [f"{a} has {value} {items}."], []
    for _ in range(rng.randint(min_steps, max_steps)):
        template, equation, value = _step(rng, value)
        sentences.append(template.format(a=a, b=b, items=items))
        equations.append(equation)
    question = " ".join(sentences) + f" How many {items} does {a} have?"
    solution = "\n".join(equations) + f"\n#### {value}"
    return Problem(
        task="math",
        key="math:" + ";".join(equations),
        prompt=f"Q: {question}\nA:\n",
        solution=solution,
        columns={"question": question, "answer": str(value)},
    )
