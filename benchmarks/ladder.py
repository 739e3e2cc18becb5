"""Tasks made by rule that a model of about 100 M parameters half knows, and what grades an answer to them.

`problems(rung, num_test, num_train)`: rows for `data.train` and held-out rows. A row and its mirror image (3 + 42 and
42 + 3, the same numbers in another order, the same word) share one class, and a class is either trained on or held out.
Assumes nothing but the standard library until something is graded.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
Made = tuple[Hashable, Row]
NAMES = ("Tom", "Mia", "Ann", "Ben", "Zoe", "Sam", "Eva", "Max", "Leo", "Ida")
ITEMS = ("books", "coins", "cards", "pens", "apples", "shells", "stamps", "eggs")
TOWNS = ("Oslo", "Rome", "Lima", "Cairo", "Quito", "Paris", "Delhi", "Seoul")
SYLLABLES = """
ba be bi ca co da de el en fa fi ga go in ka la li ma me na ne on pa ra re sa se ta te to un va we
"""
ONLY_NUMBER = "Answer with the number only."
ATTEMPTS = 100_000


@dataclass(frozen=True)
class Rung:
    """How a problem of the rung is drawn, as (class, row), and how many tokens an answer may have."""

    draw: Callable[[random.Random], Made]
    max_tokens: int


def sum_1(rng: random.Random) -> Made:
    return _sum(rng, rng.randint(1, 9), rng.randint(10, 99))


def sum_2(rng: random.Random) -> Made:
    return _sum(rng, rng.randint(10, 99), rng.randint(10, 99))


def _sum(rng: random.Random, a: int, b: int) -> Made:
    first, second = rng.sample((a, b), 2)
    return tuple(sorted((a, b))), {"prompt": f"What is {first} + {second}? {ONLY_NUMBER}", "answer": str(a + b)}


def difference_1(rng: random.Random) -> Made:
    return _difference(rng.randint(10, 99), rng.randint(1, 9))


def difference_2(rng: random.Random) -> Made:
    return _difference(*sorted((rng.randint(10, 99), rng.randint(10, 99)), reverse=True))


def _difference(a: int, b: int) -> Made:
    return (a, b), {"prompt": f"What is {a} - {b}? {ONLY_NUMBER}", "answer": str(a - b)}


def word_problem(rng: random.Random) -> Made:
    """One step, in the words of GSM8K: more, fewer, times as many."""
    name, friend = rng.sample(NAMES, 2)
    item, a, b = rng.choice(ITEMS), rng.randint(11, 40), rng.randint(2, 9)
    kind = rng.choice(("more", "fewer", "each"))
    text, answer = {
        "more": (f"{name} has {a} {item}. {friend} gives {name} {b} more.", a + b),
        "fewer": (f"{name} has {a} {item}. {name} gives {b} of them to {friend}.", a - b),
        "each": (f"{name} has {b} boxes with {a} {item} each.", a * b),
    }[kind]
    question = f"How many {item} does {name} have{' now' if kind != 'each' else ''}?"
    return (kind, a, b), {"prompt": f"{text} {question} {ONLY_NUMBER}", "answer": str(answer)}


def comparison(rng: random.Random) -> Made:
    first, second = rng.sample(range(10, 100), 2)
    pair = tuple(sorted((first, second)))
    prompt = f"Which number is larger, {first} or {second}? {ONLY_NUMBER}"
    return pair, {"prompt": prompt, "answer": str(max(pair))}


def sorting(rng: random.Random) -> Made:
    numbers = rng.sample(range(1, 100), 3)
    shown = ", ".join(map(str, numbers))
    prompt = f"Sort these numbers from smallest to largest: {shown}. Answer with the three numbers only."
    return tuple(sorted(numbers)), {"prompt": prompt, "expected": json.dumps(sorted(numbers)), "form": "numbers"}


def letters(rng: random.Random) -> Made:
    word = "".join(rng.choice(SYLLABLES.split()) for _ in range(rng.randint(2, 4)))
    letter = rng.choice(word if rng.random() < 0.8 else "xyz")
    prompt = f'How many times does the letter "{letter}" occur in the word "{word}"? {ONLY_NUMBER}'
    return word, {"prompt": prompt, "answer": str(word.count(letter))}


def json_object(rng: random.Random) -> Made:
    name, age, town = rng.choice(NAMES), rng.randint(10, 80), rng.choice(TOWNS)
    prompt = (
        f"{name} is {age} years old and lives in {town}. "
        'Write this as one JSON object with the keys "name", "age" and "city", and nothing else.'
    )
    expected = json.dumps({"name": name, "age": age, "city": town})
    return (name, age, town), {"prompt": prompt, "expected": expected, "form": "json"}


FUNCTIONS = (
    ("add", "returns x plus {k}", "x + {k}"),
    ("subtract", "returns x minus {k}", "x - {k}"),
    ("times", "returns x times {k}", "x * {k}"),
    ("remainder", "returns the remainder of x divided by {k}", "x % {k}"),
    ("larger", "returns True if x is larger than {k} and False otherwise", "x > {k}"),
    ("divisible", "returns True if x is divisible by {k} and False otherwise", "x % {k} == 0"),
    ("from_list", "returns a list of the numbers in the list x that are smaller than {k}", "[n for n in x if n < {k}]"),
)


def function(rng: random.Random) -> Made:
    """A one-line Python function of x, checked by calls with x below, at and above what its constant makes special."""
    name, what, body = rng.choice(FUNCTIONS)
    k = rng.randint(2, 99)
    inputs: list[Any] = [0, 1, k - 1, k, k + 1, 3 * k, -k]
    if name == "from_list":
        inputs = [[], [k - 1, k, k + 1], [0, 2 * k, -k]]
    wanted = [(x, eval(body.format(k=k), {"x": x})) for x in inputs]  # the task's own text, never a model's
    checks = "\n".join(f"    assert candidate({x!r}) == {y!r}" for x, y in wanted)
    prompt = f"Write a Python function `solve(x)` that {what.format(k=k)}. Answer with the code only."
    return (name, k), {"prompt": prompt, "entry_point": "solve", "test": f"def check(candidate):\n{checks}\n"}


RUNGS = {
    "sum_1": Rung(sum_1, 24),
    "sum_2": Rung(sum_2, 24),
    "difference_1": Rung(difference_1, 24),
    "difference_2": Rung(difference_2, 24),
    "word_problem": Rung(word_problem, 48),
    "comparison": Rung(comparison, 24),
    "sorting": Rung(sorting, 32),
    "letters": Rung(letters, 32),
    "json_object": Rung(json_object, 48),
    "function": Rung(function, 64),
}


def problems(rung: str, num_test: int = 200, num_train: int = 2000) -> tuple[list[Row], list[Row]]:
    """(rows to train on, held-out rows): one row per class, the same at every call. Fewer to train on where the rung
    has fewer classes; ValueError where it has not even enough to hold out.
    """
    rng, made = random.Random(f"ladder:{rung}"), {}
    for _ in range(ATTEMPTS):
        key, row = RUNGS[rung].draw(rng)
        made.setdefault(key, {"task": rung, **row})
        if len(made) == num_test + num_train:
            break
    if len(made) <= num_test:
        raise ValueError(f"{rung} has {len(made)} different problems, {num_test} are to be held out")
    rows = list(made.values())
    return rows[num_test:], rows[:num_test]


def ladder_check(*, completions: list, form: list[str | None] | None = None, **columns: Any) -> list[float | None]:
    """1 for a right answer that ended by itself, else 0: numbers and code as `task_check` does, other forms below."""
    from reward_models.base import text_of
    from reward_models.task_check import task_check

    scores = task_check(completions=completions, **columns)
    forms = form or [None] * len(completions)
    finished = columns.get("finished") or [True] * len(completions)
    for index, kind in enumerate(forms):
        if kind is not None:
            is_right = GRADERS[kind](text_of(completions[index]), json.loads(columns["expected"][index]))
            scores[index] = float(is_right and bool(finished[index]))
    return scores


def same_numbers(text: str, expected: list[int]) -> bool:
    """The numbers of the last line that has any are the expected ones, in order."""
    lines = [found for line in text.splitlines() if (found := re.findall(r"-?\d+", line))]
    return bool(lines) and [int(number) for number in lines[-1]] == expected


def same_json(text: str, expected: dict[str, Any]) -> bool:
    """The text is that object and nothing else, within a code fence or without."""
    fenced = re.fullmatch(r"\s*```(?:json)?\s*(.*?)\s*```\s*", text, re.S)
    try:
        found = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):  # model output is untrusted
        return False
    return bool(found == expected) and [type(value) for value in found.values()] == [
        type(expected[key]) for key in found
    ]


GRADERS: dict[str, Callable[[str, Any], bool]] = {"numbers": same_numbers, "json": same_json}
