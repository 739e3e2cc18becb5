"""The ladder of tasks: nothing held out is trained on in any order, and graders judge what people would."""

import ast
import json
import re
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import ladder  # noqa: E402


def mirrored(row):
    """What a row is about, whatever its order: its numbers and letters, sorted, with the words around them."""
    numbers = sorted(re.findall(r"\d+", row["prompt"]))
    if row["task"] == "letters":
        return re.search(r'word "(\w+)"', row["prompt"])[1]
    if row["task"] in ("sum_1", "sum_2", "comparison", "sorting"):
        return tuple(numbers)
    return row["prompt"]


@pytest.mark.parametrize("rung", ladder.RUNGS)
def test_no_held_out_problem_or_its_mirror_image_is_trained_on(rung):
    train, test = ladder.problems(rung)
    assert len(test) == 200
    assert len(train) > 200
    assert not {mirrored(row) for row in train} & {mirrored(row) for row in test}
    assert len({mirrored(row) for row in test}) == 200


@pytest.mark.parametrize("rung", ["sum_1", "sum_2", "difference_1", "difference_2"])
def test_answers_of_arithmetic_are_right(rung):
    for row in ladder.problems(rung)[1]:
        a, sign, b = re.search(r"(\d+) ([+-]) (\d+)", row["prompt"]).groups()
        assert int(row["answer"]) == (int(a) + int(b) if sign == "+" else int(a) - int(b))


def test_problems_are_the_same_at_every_call():
    assert ladder.problems("word_problem") == ladder.problems("word_problem")
    first, second = ladder.problems("sorting", 5, 5), ladder.problems("sorting", 5, 50)
    assert first[1] == second[1]


def check(row, text, finished=True):
    columns = {name: [row.get(name)] for name in ("answer", "expected", "form", "test", "entry_point")}
    return ladder.ladder_check(prompts=["p"], completions=[text], finished=[finished], **columns)[0]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("7, 63, 81", True),
        ("The numbers are 81, 63, 7.\nSorted: 7, 63, 81.", True),
        ("63, 7, 81", False),
        ("7, 63", False),
        ("I cannot", False),
    ],
)
def test_sorted_numbers(text, right):
    row = {"expected": "[7, 63, 81]", "form": "numbers"}
    assert check(row, text) == right
    assert check(row, text, finished=False) == 0


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('{"name": "Mia", "age": 35, "city": "Lima"}', True),
        ('```json\n{"city": "Lima", "age": 35, "name": "Mia"}\n```', True),
        ('{"name": "Mia", "age": "35", "city": "Lima"}', False),
        ('{"name": "Mia", "age": 35.0, "city": "Lima"}', False),
        ('Here: {"name": "Mia", "age": 35, "city": "Lima"}', False),
        ("[" * 100_000, False),
        ("[1]", False),
    ],
)
def test_json_in_the_given_form(text, right):
    expected = json.dumps({"name": "Mia", "age": 35, "city": "Lima"})
    assert check({"expected": expected, "form": "json"}, text) == right


def test_numbers_and_functions_are_graded_as_task_check_does():
    assert check({"answer": "42"}, "The answer is 42.") == 1
    assert check({"answer": "42"}, "41") == 0
    row = next(row for row in ladder.problems("function")[1] if "plus" in row["prompt"])
    k = int(re.search(r"plus (\d+)", row["prompt"])[1])
    assert check(row, f"```python\ndef solve(x):\n    return x + {k}\n```") == 1
    assert check(row, f"```python\ndef solve(x):\n    return x + {k + 1}\n```") == 0


def test_tests_of_functions_are_valid_programs():
    for row in ladder.problems("function")[1]:
        ast.parse(row["test"])
