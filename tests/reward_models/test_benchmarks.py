"""Benchmarks by their columns: MBPP, input and output, classes; 100 problems each, right and wrong answers."""

import base64
import json
import pickle
import zlib
from pathlib import Path

import pytest

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


def row_scores(row, completions, **options):
    return scores([row] * len(completions), completions, **options)


def script(expression, read="n = int(input())"):
    return f"```python\n{read}\nprint({expression})\n```"


CASES = {"inputs": ["1\n", "2\n", "10\n"], "outputs": ["1\n", "4\n", "100\n"]}


def test_every_case_counts_and_the_share_is_told():
    completions = [script("n * n"), script("n * n if n < 10 else 0"), script("1"), script("'4'")]
    assert row_scores(CASES, completions) == [1.0, 0.0, 0.0, 0.0]
    assert row_scores(CASES, completions, fraction=True) == pytest.approx([1.0, 2 / 3, 1 / 3, 1 / 3])


def test_output_is_compared_by_the_rules_of_the_set():
    real = {"inputs": ["3\n"], "outputs": ["0.3333333333\n"]}
    completions = [script("1 / n"), script("'0.333333'"), script("0.33"), script("1"), script("''")]
    assert row_scores(real, completions) == [1.0, 1.0, 0.0, 0.0, 0.0]
    whole = {"inputs": ["0\n"], "outputs": ["1000000007 0.5\n"]}
    completions = [script("10**9 + 7, .5"), script("10**9 + 8, .5"), script("10**9 + 7, .5, 1"), script("10**9 + 7")]
    assert row_scores(whole, completions) == [1.0, 0.0, 0.0, 0.0]
    cases = [{"input": "2\n", "output": "1 2\n0.50\n", "testtype": "stdin"}]
    lines = {"public_test_cases": json.dumps(cases)}
    completions = [
        script("'1 2 \\n0.5\\n'"),
        script("'1 2', .5, sep='\\n'"),
        script("'1 2 0.5'"),
        script("'1\\n2 0.5'"),
        script("'1 2\\n0.5000001'"),
    ]
    assert row_scores(lines, completions) == [1.0, 1.0, 0.0, 0.0, 0.0]
    tokens = {"inputs": ["2\n"], "outputs": ["1 2\n3\n"]}
    assert row_scores(tokens, [script("1, 2, 3"), script("'1\\n2\\n3'"), script("123")]) == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "completion",
    [
        "```python\ndef solve():\n    n = int(input())\n    print(n * n)\n```\nand then\n```python\nsolve()\n```",
        "```python\ndef square(n):\n    return n * n\n```\n```python\nprint(square(int(input())))\n```",
        "```python\nprint(int(input()) ** 2)\n```\nFor 3:\n```\n9\n```",
        "```python\nprint(int(input()) ** 2)\n```\nFor example:\n```python\nprint(3 ** 2)\n```",
        "<think>\n```python\n0\n```\n</think>\nimport sys\nn = int(sys.stdin.readline())\nprint(n * n)\nIt is fast",
        "n, = map(int, open(0).read().split())\nprint(n * n)",
        "import sys\nif __name__ == '__main__':\n    print(int(sys.stdin.read()) ** 2)",
    ],
)
def test_scripts_as_models_write_them(completion):
    assert row_scores(CASES, [completion]) == [1.0]
    assert row_scores(CASES, [completion.replace("</think>", "")]) == [0.0 if "<think>" in completion else 1.0]


def test_private_tests_of_livecodebench_are_unpacked_and_nothing_else_is():
    cases = json.dumps([{"input": "3\n", "output": "9\n", "testtype": "stdin"}])
    packed = base64.b64encode(zlib.compress(pickle.dumps(cases))).decode()
    assert row_scores({"private_test_cases": packed}, [script("n * n"), script("n")]) == [1.0, 0.0]
    hostile = base64.b64encode(zlib.compress(pickle.dumps(print))).decode()
    with pytest.raises(ValueError, match="column private_test_cases: expected JSON"):
        check_of({"private_test_cases": hostile})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input_output": "{"}, "column input_output: expected JSON, found '{'"),
        ({"input_output": {"inputs": ["1"], "outputs": []}}, "column input_output: 1 inputs, but 0 outputs"),
        ({"input_output": ["1"]}, "column input_output: expected an object with inputs and outputs"),
        ({"public_test_cases": '["1"]'}, "column public_test_cases: expected a list of cases with input and output"),
        ({"test_list": ["assert 1 == 1"]}, "column test_list: no function is called by all of the asserts"),
        ({"test_list": ["assert f("]}, "column test_list: an assert does not compile"),
    ],
)
def test_a_column_that_does_not_hold_what_its_name_says_is_told_in_one_line(row, message):
    with pytest.raises(ValueError, match=message.replace("(", "\\(").replace("[", "\\[")):
        check_of(row)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"answer": "5"},
        {"test": "def check(candidate): pass"},
        {"tests": "see the appendix"},
        {"examples": [{"input": "a", "output": "b"}]},
        {"tests": [1, 2]},
        {"inputs": "text", "outputs": "text"},
        {"input_output": "", "test_list": []},
    ],
)
def test_a_row_of_another_kind_is_no_code_problem(row):
    assert check_of(row) is None


def test_task_check_takes_each_row_for_what_it_is():
    rows = [mbpp_row(EXERCISES[0]), CASES, {"answer": "9"}, {}]
    columns = {name: [row.get(name) for row in rows] for name in (*CODE_COLUMNS, "answer")}
    texts = [EXERCISES[0].function(EXERCISES[0].right), script("n * n"), "#### 9", "anything"]
    assert task_check(prompts=["p"] * 4, completions=texts, **columns) == [1.0, 1.0, 1.0, None]


def test_packages_are_reachable_from_the_reward(capsys):
    pytest.importorskip("numpy")
    row = {"test_list": ["assert total([1, 2]) == 3"]}
    completion = "```python\nimport numpy as np\ndef total(xs):\n    return int(np.sum(xs))\n```"
    assert row_scores(row, [completion]) == [0.0]
    assert row_scores(row, [completion], packages=["numpy"]) == [1.0]
    assert "programs may import numpy; the sandbox is of tier" in capsys.readouterr().out


CACHE = """class Cache:
    def __init__(self, size):
        self.d = {}
    def put(self, k, v):
        self.d[k] = v
    def get(self, k):
        return self.d.get(k, -1)
"""
CACHE_TEST = """def check(candidate):
    c = candidate(2)
    c.put(1, 5)
    assert c.get(1) == 5
    assert c.get(2) == -1
"""


def test_designs_of_a_class_are_tested_through_its_methods():
    row = {"test": CACHE_TEST, "entry_point": "Cache"}
    assert row_scores(row, [CACHE, CACHE.replace("-1", "0"), f"```python\n{CACHE}```"]) == [1.0, 0.0, 1.0]


CASE_FILE = Path(__file__).parents[2] / "../shared/cases/code_rewards.jsonl"


@pytest.mark.skipif(not CASE_FILE.exists(), reason="the cases are not beside the repository")
def test_the_reported_cases():
    cases = [json.loads(line) for line in CASE_FILE.read_text().splitlines()]
    found = code_execution(
        prompts=[case["head"] or "" for case in cases],
        completions=[case["completion"] for case in cases],
        test=[case["test"] for case in cases],
        entry_point=[case["entry_point"] for case in cases],
    )
    assert found == [case["score"] for case in cases]
