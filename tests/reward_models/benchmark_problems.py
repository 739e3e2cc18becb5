"""Problems in the shapes of MBPP, of sets of input and output, and of LeetCode: 100 each, made by rule.

A problem's expected values come from its oracle, a plain loop written beside it; the right program and the wrong ones
are texts that no oracle has seen. Each wrong one differs from the oracle on at least one of the inputs that are tested.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Oracle = Callable[..., Any]


@dataclass(frozen=True)
class Rule:
    """A family of functions of one number k: the right expression, wrong ones, and the oracle."""

    kind: str  # of the argument: numbers, text, pair
    right: str
    wrong: tuple[str, ...]
    oracle: Oracle


def _sum_of_squares(xs: list[int], k: int) -> int:
    total = 0
    for x in xs:
        if x > k:
            total += x * x
    return total


def _running(xs: list[int], k: int) -> list[int]:
    found, last = [], k
    for x in xs:
        last += x
        found.append(last)
    return found


def _smallest_and_largest(xs: list[int], k: int) -> tuple[int, int]:
    low = high = xs[0] * k
    for x in xs[1:]:
        low, high = (x * k, high) if x * k < low else (low, x * k) if x * k > high else (low, high)
    return low, high


def _remainders(xs: list[int], k: int) -> dict[int, int]:
    counts: dict[int, int] = {}
    for x in xs:
        if x % k not in counts:
            counts[x % k] = 0
        counts[x % k] += 1
    return counts


def _mean(xs: list[int], k: int) -> float:
    total = 0
    for x in xs:
        total += x
    return total / len(xs) / k


def _chunks(xs: list[int], k: int) -> list[list[int]]:
    found: list[list[int]] = [[]]
    for x in xs:
        if len(found[-1]) == k:
            found.append([])
        found[-1].append(x)
    return found


def _distinct_over(xs: list[int], k: int) -> set[int]:
    found = set()
    for x in xs:
        if x > k:
            found.add(x)
    return found


def _has_sum(xs: list[int], k: int) -> bool:
    for i in range(len(xs)):
        for j in range(i):
            if xs[i] + xs[j] == 3 * k:
                return True
    return False


def _shifted(text: str, k: int) -> str:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return "".join(alphabet[(alphabet.index(c) + k) % 26] if c in alphabet else c for c in text)


def _long_words(text: str, k: int) -> list[str]:
    found, word = [], ""
    for c in text + " ":
        if c != " ":
            word += c
        else:
            if len(word) > k:
                found.append(word)
            word = ""
    return found


def _letters(text: str, k: int) -> int:
    count = 0
    for c in text:
        if c in "aeiou":
            count += k
    return count


def _power(a: int, b: int, k: int) -> int:
    result = 1
    for _ in range(b):
        result = result * a % (10**9 + k)
    return result


def _common_factor(a: int, b: int, k: int) -> int:
    largest = 1
    for d in range(1, min(a, b) + 1):
        if a % d == 0 and b % d == 0:
            largest = d
    return largest * k


RULES = (
    Rule("numbers", "sum(x * x for x in xs if x > {k})", ("sum(x * x for x in xs if x >= {k})",), _sum_of_squares),
    Rule("numbers", "list(itertools.accumulate(xs, initial={k}))[1:]", ("list(itertools.accumulate(xs))",), _running),
    Rule("numbers", "(min(xs) * {k}, max(xs) * {k})", ("(xs[0] * {k}, xs[-1] * {k})",), _smallest_and_largest),
    Rule("numbers", "dict(collections.Counter(x % {k} for x in xs))", ("{x % {k}: 1 for x in xs}",), _remainders),
    Rule("numbers", "sum(xs) / len(xs) / {k}", ("sum(xs) // len(xs) / {k}",), _mean),
    Rule(
        "numbers",
        "[xs[i : i + {k}] for i in range(0, len(xs), {k})]",
        ("[xs[i : i + {k}] for i in range(0, len(xs) - 1, {k})]",),
        _chunks,
    ),
    Rule("numbers", "{x for x in xs if x > {k}}", ("{x for x in xs if x >= {k}}",), _distinct_over),
    Rule("numbers", "any(a + b == 3 * {k} for a, b in itertools.combinations(xs, 2))", ("3 * {k} in xs",), _has_sum),
    Rule(
        "text",
        "''.join(chr((ord(c) - 97 + {k}) % 26 + 97) if c.islower() else c for c in text)",
        ("''.join(chr(ord(c) + {k}) for c in text)",),
        _shifted,
    ),
    Rule(
        "text",
        "[w for w in text.split() if len(w) > {k}]",
        ("[w for w in text.split() if len(w) >= {k}]",),
        _long_words,
    ),
    Rule("text", "{k} * sum(map(text.count, 'aeiou'))", ("{k} * sum(map(text.count, 'aeio'))",), _letters),
    Rule("pair", "pow(a, b, 10**9 + {k})", ("a ** b % 10**9 + {k}",), _power),
    Rule("pair", "{k} * math.gcd(a, b)", ("{k} * abs(a - b)",), _common_factor),
)
ARGUMENTS = {"numbers": ("xs",), "text": ("text",), "pair": ("a", "b")}
TYPES = {"numbers": "xs: List[int]", "text": "text: str", "pair": "a: int, b: int"}
IMPORTS = "import collections\nimport itertools\nimport math\n"
WORDS = ("apple", "sky", "a", "ocean", "tree", "go", "queue", "if", "under", "yes", "zebra", "i")


@dataclass(frozen=True)
class Exercise:
    """One problem: the right expression, wrong ones, and calls with the values that the oracle gives."""

    name: str
    kind: str
    right: str
    wrong: tuple[str, ...]
    calls: list[tuple[tuple, Any]]

    def function(self, expression: str) -> str:
        return f"{IMPORTS}\n\ndef {self.name}({', '.join(ARGUMENTS[self.kind])}):\n    return {expression}\n"

    def method(self, expression: str) -> str:
        arguments = TYPES[self.kind]
        return f"class Solution:\n    def {self.name}(self, {arguments}):\n        return {expression}\n"

    def script(self, expression: str) -> str:
        read = {
            "numbers": "n = int(input())\nxs = list(map(int, input().split()))\n",
            "text": "text = input()\n",
            "pair": "a, b = map(int, input().split())\n",
        }[self.kind]
        return f"{IMPORTS}{read}result = {expression}\n{SHOW}show(result)\n"


# how the programs of input and output write their result
SHOW = """
def show(value):
    if isinstance(value, bool):
        print("YES" if value else "NO")
    elif isinstance(value, dict):
        for key in sorted(value):
            print(key, value[key])
    elif isinstance(value, (list, tuple, set)):
        rows = sorted(value) if isinstance(value, set) else list(value)
        nested = bool(rows) and isinstance(rows[0], list)
        print(*(" ".join(map(str, row)) if nested else row for row in rows), sep="\\n" if nested else " ")
    else:
        print(value)
"""


def shown(value: Any, exact: bool = False) -> str:
    """The expected output, written independently of `SHOW`: real numbers with nine decimals, or `exact` and a zero."""
    if value is True or value is False:
        return {True: "YES", False: "NO"}[value] + "\n"
    if isinstance(value, float):
        return f"{value!r}0\n" if exact else f"{value:.9f}\n"
    if isinstance(value, dict):
        return "".join(f"{key} {value[key]}\n" for key in sorted(value))
    if isinstance(value, set):
        value = sorted(value)
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "".join(" ".join(str(item) for item in row) + "\n" for row in value)
    if isinstance(value, list | tuple):
        return " ".join(str(item) for item in value) + "\n"
    return f"{value}\n"


def exercises(number: int = 100, seed: int = 0) -> Iterator[Exercise]:
    """The same exercises for the same seed."""
    rng = random.Random(seed)
    for index in range(number):
        rule, k = RULES[index % len(RULES)], rng.randint(2, 5)
        while True:
            calls = [(arguments := _arguments(rng, rule.kind, k), rule.oracle(*arguments, k)) for _ in range(6)]
            wrong = tuple(text.replace("{k}", str(k)) for text in rule.wrong)
            distinct = {repr(expected) for _, expected in calls}
            if len(distinct) > 1 and all(_differs(text, rule.kind, calls) for text in wrong):
                break
        yield Exercise(f"solve_{index}", rule.kind, rule.right.replace("{k}", str(k)), wrong, calls)


def _arguments(rng: random.Random, kind: str, k: int) -> tuple:
    if kind == "text":
        return (" ".join(rng.choice(WORDS) for _ in range(rng.randint(2, 6))),)
    if kind == "pair":
        return rng.randint(2, 60), rng.randint(2, 60)
    return ([rng.choice((rng.randint(-20, 40), k)) for _ in range(rng.randint(3, 9))],)


def _differs(expression: str, kind: str, calls: list[tuple[tuple, Any]]) -> bool:
    """Whether an expression of this file, with which wrong programs are built, is wrong on the last input tested."""
    import collections
    import itertools

    known = {"collections": collections, "itertools": itertools, "math": math}
    arguments, expected = calls[-1]
    return eval(expression, known | dict(zip(ARGUMENTS[kind], arguments, strict=True))) != expected


def mbpp_row(exercise: Exercise) -> dict[str, Any]:
    asserts = []
    for number, (arguments, expected) in enumerate(exercise.calls):
        call = f"{exercise.name}({', '.join(map(repr, arguments))})"
        if isinstance(expected, float):
            asserts.append(f"assert math.isclose({call}, {expected!r}, rel_tol=0.001)")
        elif isinstance(expected, bool) and number % 2:
            asserts.append(f"assert {'' if expected else 'not '}{call}")
        elif isinstance(expected, set) and expected:
            asserts.append(f"assert sorted({call}) == {sorted(expected)!r}")
        else:
            asserts.append(f"assert {call} == {expected!r}")
    return {"task_id": exercise.name, "test_list": asserts, "test_imports": ["import math"], "test_setup_code": ""}


def io_row(exercise: Exercise, shape: str) -> dict[str, Any]:
    """A row in the shape of apps, codeforces, livecodebench, contests or plain."""
    inputs, outputs = [], []
    for arguments, expected in exercise.calls:
        first = arguments[0]
        numbers = f"{len(first)}\n{' '.join(map(str, first))}\n" if isinstance(first, list) else ""
        inputs.append(numbers or " ".join(map(str, arguments)) + "\n")
        outputs.append(shown(expected, exact=shape == "livecodebench"))  # compares decimal numbers, with no tolerance
    cases = [{"input": i, "output": o} for i, o in zip(inputs, outputs, strict=True)]
    typed = [case | {"testtype": "stdin"} for case in cases]
    return {
        "apps": {"input_output": json.dumps({"inputs": inputs, "outputs": outputs})},
        "codeforces": {"examples": cases[:1], "official_tests": cases},
        "livecodebench": {
            "public_test_cases": json.dumps(typed[:2]), "private_test_cases": json.dumps(typed[2:]), "metadata": "{}",
        },
        "contests": {"public_tests": {"input": inputs[:2], "output": outputs[:2]},
                     "private_tests": {"input": inputs[2:], "output": outputs[2:]}},
        "plain": {"inputs": inputs, "outputs": outputs},
    }[shape]  # fmt: skip


def class_row(exercise: Exercise, shape: str) -> dict[str, Any]:
    """A row in the shape of leetcode, livecodebench or apps; the last two know lists, not tuples or sets."""
    starter = exercise.method("...").rsplit("return", 1)[0]
    if shape == "leetcode":
        names = ARGUMENTS[exercise.kind]
        named = [", ".join(f"{n} = {a!r}" for n, a in zip(names, given, strict=True)) for given, _ in exercise.calls]
        wanted = [want for _, want in exercise.calls]
        lines = [f"    assert candidate({call}) == {want!r}\n" for call, want in zip(named, wanted, strict=True)]
        test = "def check(candidate):\n" + "".join(lines)
        return {"entry_point": f"Solution().{exercise.name}", "test": test, "starter_code": starter}
    calls = [(list(arguments), list(w) if isinstance(w, tuple) else w) for arguments, w in exercise.calls]
    if shape == "livecodebench":
        cases = [
            {"input": "\n".join(map(json.dumps, arguments)), "output": json.dumps(want), "testtype": "functional"}
            for arguments, want in calls
        ]
        metadata = json.dumps({"func_name": exercise.name})
        return {"public_test_cases": json.dumps(cases), "metadata": metadata, "starter_code": starter}
    problem = {
        "fn_name": exercise.name, "inputs": [arguments for arguments, _ in calls], "outputs": [[w] for _, w in calls],
    }  # fmt: skip
    return {"input_output": json.dumps(problem), "starter_code": starter}
