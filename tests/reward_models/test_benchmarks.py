"""Benchmarks by their columns: MBPP, input and output, classes; 100 problems each, right and wrong answers."""

import base64
import json
import pickle
import zlib

import pytest

from reward_models import Unscored
from reward_models import code_execution as module
from reward_models.code_execution import code_execution
from reward_models.code_problems import CODE_COLUMNS, check_of
from reward_models.task_check import task_check
from sandboxes import SandboxError
from tests.reward_models.benchmark_problems import class_row, exercises, io_row, mbpp_row

pytestmark = pytest.mark.usefixtures("real_sandbox")
EXERCISES = list(exercises())


@pytest.fixture(scope="module")
def real_sandbox():
    try:
        return module.sandbox()
    except SandboxError as error:
        pytest.skip(f"no sandbox on this machine: {error}")


def scores(rows, completions, **options):
    columns = {name: [row.get(name) for row in rows] for name in CODE_COLUMNS if any(name in row for row in rows)}
    return code_execution(prompts=["Write a program."] * len(rows), completions=completions, **columns, **options)


def dressed(code, number):
    """The code as models answer: in a fence, bare, behind prose, in a list."""
    fence = f"```python\n{code}```"
    indented = "".join(f"   {line}\n" for line in fence.splitlines())
    return (fence, code, f"Sure:\n\n{fence}\nIt is linear.", f"1. Here:\n\n{indented}")[number % 4]


def answers(make):
    """(right programs, wrong by rule, and ways of being wrong that every problem knows)."""
    right = [make(exercise)(exercise.right) for exercise in EXERCISES]
    wrong = [make(exercise)(exercise.wrong[0]) for exercise in EXERCISES]
    generic = ["None", "1 / 0", "undefined", "exit(0)"]
    failing = [make(exercise)(generic[n % len(generic)]) for n, exercise in enumerate(EXERCISES)]
    return right, wrong, failing


def check_all(rows, programs):
    right, wrong, failing = ([dressed(code, n) for n, code in enumerate(codes)] for codes in programs)
    assert scores(rows, right) == [1.0] * len(rows)
    assert scores(rows, wrong) == [0.0] * len(rows)
    assert scores(rows, failing) == [0.0] * len(rows)
    assert scores(rows, ["I do not know."] * len(rows)) == [0.0] * len(rows)
    partly = scores(rows, wrong, fraction=True)
    assert all(0.0 <= share < 1.0 for share in partly)
    assert scores(rows, right, fraction=True) == [1.0] * len(rows)


def test_mbpp_problems():
    check_all([mbpp_row(exercise) for exercise in EXERCISES], answers(lambda exercise: exercise.function))


def test_problems_of_input_and_output():
    shapes = ("apps", "codeforces", "livecodebench", "contests", "plain")
    rows = [io_row(exercise, shapes[n % len(shapes)]) for n, exercise in enumerate(EXERCISES)]
    check_all(rows, answers(lambda exercise: exercise.script))


def test_problems_that_want_a_class():
    def shape(number, exercise):
        data = all(isinstance(want, (bool, int, float, str, list, tuple)) for _, want in exercise.calls)
        return ("leetcode", "livecodebench", "apps")[number % 3 if data else 0]

    rows = [class_row(exercise, shape(n, exercise)) for n, exercise in enumerate(EXERCISES)]
    check_all(rows, answers(lambda exercise: exercise.method))
