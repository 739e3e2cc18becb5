"""Demo code family: a short Python function from a signature and docstring, in HumanEval's format.

Each problem carries prompt, entry point and a test that defines ``check(candidate)``. Standard library only; the
expected values in the tests come from the generator's own arithmetic, never from executing text.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from ..types import Problem

Number = Callable[[int], int]
AGGREGATES: dict[str, tuple[str, Callable[[list[int]], object]]] = {
    "the sum of": ("sum({})", sum),
    "the count of": ("len([{}])", len),
    "the largest of": ("max([{}], default=0)", lambda values: max(values, default=0)),
    "a list of": ("[{}]", list),
}
NUM_TESTS = 4
FUNCTION_NAMES = ("f", "g", "h", "run", "solve", "apply", "work", "calc")


def _condition(rng: random.Random) -> tuple[str, str, Callable[[int], bool]]:
    k = rng.randint(2, 9)
    return rng.choice(
        [
            ("even", "x % 2 == 0", lambda x: x % 2 == 0),
            ("odd", "x % 2 == 1", lambda x: x % 2 == 1),
            (f"above {k}", f"x > {k}", lambda x: x > k),
            (f"below {k}", f"x < {k}", lambda x: x < k),
            (f"divisible by {k}", f"x % {k} == 0", lambda x: x % k == 0),
        ]
    )


def _filter(rng: random.Random) -> tuple[str, str, Callable[[int], bool]]:
    """(words, code, predicate): no condition, one, or two joined by and/or."""
    words, code, holds = _condition(rng)
    kind = rng.choice(("none", "one", "and", "or"))
    if kind == "none":
        return "", "", lambda x: True
    if kind == "one":
        return f" that are {words}", f" if {code}", holds
    other_words, other_code, other_holds = _condition(rng)
    words, code = f" that are {words} {kind} {other_words}", f" if {code} {kind} {other_code}"
    if kind == "and":
        return words, code, lambda x: holds(x) and other_holds(x)
    return words, code, lambda x: holds(x) or other_holds(x)


def _map(rng: random.Random) -> tuple[str, str, Number]:
    k, n = rng.randint(2, 9), rng.randint(2, 9)
    return rng.choice(
        [
            ("the items", "x", lambda x: x),
            (f"{k} times the items", f"x * {k}", lambda x: x * k),
            (f"{k} plus the items", f"x + {k}", lambda x: x + k),
            ("the squares of the items", "x * x", lambda x: x * x),
            (f"{k} times the items minus {n}", f"x * {k} - {n}", lambda x: x * k - n),
        ]
    )


def _check(calls: Sequence[tuple[object, object]]) -> str:
    return "def check(candidate):\n" + "".join(f"    assert candidate({x!r}) == {y!r}\n" for x, y in calls)


def _list_function(rng: random.Random) -> Problem:
    aggregate = rng.choice(list(AGGREGATES))
    template, apply_aggregate = AGGREGATES[aggregate]
    filter_words, filter_code, keep = _filter(rng)
    map_words, map_code, change = _map(rng)
    body = template.format(f"{map_code} for x in xs{filter_code}")
    inputs = [[rng.randint(0, 20) for _ in range(rng.randint(4, 7))] for _ in range(NUM_TESTS)]
    calls = [(xs, apply_aggregate([change(x) for x in xs if keep(x)])) for xs in inputs]
    return _problem(rng, "xs", f"Return {aggregate} {map_words}{filter_words}.", body, _check(calls))


def _arithmetic_function(rng: random.Random) -> Problem:
    words, code = [], "x"
    steps: list[Number] = []
    for _ in range(rng.randint(2, 3)):
        word, symbol = rng.choice((("add", "+"), ("subtract", "-"), ("multiply by", "*")))
        k = rng.randint(2, 9)
        words.append(f"{word} {k}")
        code = f"({code}) {symbol} {k}" if symbol == "*" and " " in code else f"{code} {symbol} {k}"
        steps.append({"+": lambda x, k=k: x + k, "-": lambda x, k=k: x - k, "*": lambda x, k=k: x * k}[symbol])
    calls: list[tuple[object, object]] = []
    for x in rng.sample(range(-9, 30), NUM_TESTS):
        result = x
        for step in steps:
            result = step(result)
        calls.append((x, result))
    return _problem(rng, "x", f"Take x, {', then '.join(words)}.", code, _check(calls))


def _problem(rng: random.Random, argument: str, docstring: str, expression: str, test: str) -> Problem:
    name = rng.choice(FUNCTION_NAMES)
    prompt = f'def {name}({argument}):\n    """{docstring}"""\n'
    return Problem(
        task="code",
        key="code:" + docstring,
        prompt=prompt,
        solution=f"    return {expression}",
        columns={"entry_point": name, "test": test, "code_prompt": prompt},
    )


def make_short_function(rng: random.Random) -> Problem:
    """A list function (two thirds) or an arithmetic one, with four hidden assertions."""
    return _list_function(rng) if rng.random() < 2 / 3 else _arithmetic_function(rng)
