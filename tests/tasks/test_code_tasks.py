"""Tasks that ask for programs, and MATH-500: the hub's columns, prompts, gold, wrong, empty and cheating answers."""

import ast
import copy
import gzip
import json
import re
from pathlib import Path

import pytest

from rl_distill.doctor.diagnosis import gold_findings, gold_of
from rl_distill.tasks.base import Task, TaskError, TaskOptions, load_task, validate
from rl_distill.types import Problem
from sandboxes import SandboxError, shared_sandbox

HUMANEVAL = Path(__file__).parents[3] / "shared/data/humaneval/HumanEval.jsonl.gz"
EVALPLUS = """import numpy as np


def is_floats(x) -> bool:
    if isinstance(x, float):
        return True
    if isinstance(x, (list, tuple)):
        return all(isinstance(i, float) for i in x)
    if isinstance(x, np.ndarray):
        return x.dtype == np.float64 or x.dtype == np.float32
    return False


def assertion(out, exp, atol):
    exact_match = out == exp
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if not exact_match and atol != 0:
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert exact_match


"""
IN_CHECK = """def check(candidate):
    inputs = {inputs!r}
    results = {results!r}
    for i, (inp, exp) in enumerate(zip(inputs, results)):
        assertion(candidate(*inp), exp, 0)
"""
AT_THE_TOP = """inputs = {inputs!r}
results = {results!r}
for i, (inp, exp) in enumerate(zip(inputs, results)):
    assertion({name}(*inp), exp, 0)
"""
MBPP = {
    "task_id": 11,
    "text": "Write a python function to double a number.",
    "code": "def twice(n):\r\n  return n * 2",
    "test_list": ["assert twice(2) == 4", "assert twice(-1) == -2", "assert twice(0) == 0"],
    "test_setup_code": "",
    "challenge_test_list": [],
}
PLUS = {
    "task_id": 11,
    "prompt": MBPP["text"],
    "code": "def twice(n):\n    return n * 2",
    "test_imports": [],
    "test_list": MBPP["test_list"],
    "test": EVALPLUS + AT_THE_TOP.format(inputs=[[2], [0.1], [100]], results=[4, 0.2, 200], name="twice"),
}
SQUARES = {"inputs": ["2\n", "5\n"], "outputs": ["4\n", "25\n"]}
SQUARE = "n = int(input())\nprint(n * n)"
APPS = {
    "problem_id": 7,
    "question": "Print the square of n.",
    "solutions": json.dumps([SQUARE, "print(int(input()) ** 2)"]),
    "input_output": json.dumps(SQUARES),
    "starter_code": "",
}
CODEFORCES = {
    "id": "1/A",
    "title": "Squares",
    "description": "Print the square of n.",
    "input_format": "n.",
    "output_format": "Its square.",
    "examples": [{"input": "2\n", "output": "4\n"}],
    "official_tests": [{"input": "5\n", "output": "25\n"}],
}
LIVECODEBENCH = {
    "question_id": "abc",
    "question_content": "Print the square of n.",
    "starter_code": "",
    "public_test_cases": json.dumps([{"input": "2\n", "output": "4\n", "testtype": "stdin"}]),
    "private_test_cases": json.dumps([{"input": "5\n", "output": "25\n", "testtype": "stdin"}]),
    "metadata": "{}",
}
LEETCODE = {
    "task_id": "square",
    "problem_description": "Return the square of n.",
    "starter_code": "class Solution:\n    def square(self, n: int) -> int:\n        ",
    "completion": "class Solution:\n    def square(self, n: int) -> int:\n        return n * n",
    "entry_point": "Solution().square",
    "test": "def check(candidate):\n    assert candidate(n = 2) == 4\n    assert candidate(n = 5) == 25\n",
}
WRONG = {
    "mbpp": "def twice(n):\n    return n * n",
    "mbpp_plus": "def twice(n):\n    return int(n) * 2",
    "apps": "print(4)",
    "codeforces": "print(4)",
    "livecodebench": "print(4)",
    "leetcode": "class Solution:\n    def square(self, n):\n        return 4",
}
ROWS = {
    "mbpp": MBPP,
    "mbpp_plus": PLUS,
    "apps": APPS,
    "codeforces": CODEFORCES | {"solution": SQUARE},
    "livecodebench": LIVECODEBENCH,
    "leetcode": LEETCODE,
}


@pytest.fixture(scope="module", autouse=True)
def _sandbox():
    try:
        shared_sandbox().start()
    except SandboxError as error:
        pytest.skip(f"no sandbox on this machine: {error}")


def write(path: Path, rows: list) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(name: str, path: str, protocol: str = "chat") -> Task:
    return load_task(name, TaskOptions(path, protocol, has_chat_template=True))


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("protocol", ["base", "chat"])
def test_a_gold_answer_passes_and_wrong_empty_and_cheating_ones_do_not(tmp_path, name, protocol):
    task = load(name, write(tmp_path / "test.jsonl", [ROWS[name]]), protocol)
    problems = task.problems()
    has_gold = name != "livecodebench"
    assert validate(task, problems) == has_gold
    right = task.gold(problems[0]) if has_gold else SQUARE
    texts = [
        right,
        WRONG[name],
        "",
        "import sys; sys.exit(0)",
        f"Here:\n```python\n{WRONG[name]}\n```",
        f"<think>{right}",
    ]
    grades = [graded.scores["pass"] for graded in task.grade(problems * len(texts), texts)]
    assert grades == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_prompts_of_mbpp(tmp_path):
    write(tmp_path / "prompt.jsonl", [MBPP | {"task_id": n, "code": f"def f{n}(): pass"} for n in range(1, 11)])
    path = str(Path(write(tmp_path / "test.jsonl", [MBPP])).parent)
    assert load("mbpp", path, "base").problems()[0].prompt == (
        '"""\nWrite a python function to double a number.\nassert twice(2) == 4\n"""\n'
    )
    shots = load("mbpp", path, "3-shot").problems()[0].prompt
    assert re.findall(r"def (f\d)", shots) == ["f2", "f3", "f4"]
    assert shots.endswith("assert twice(-1) == -2\nassert twice(0) == 0\n[BEGIN]\n")
    assert shots.count("[DONE]") == 3
    chat = load("mbpp", path).problems()[0].prompt
    assert chat.startswith(
        "Write a python function to double a number.\n\nYour code should pass these tests:\n\nassert "
    )


def test_prompts_of_competitions(tmp_path):
    shown = {
        name: load(name, write(tmp_path / "test.jsonl", [ROWS[name]])).problems()[0].prompt for name in list(ROWS)[2:]
    }
    assert shown["apps"].startswith("Print the square of n.\n\nWrite a Python program that reads from standard input")
    assert "Input\nn.\n\nOutput\nIts square.\n\nExample\n2\nOutput\n4\n\nWrite a Python program" in shown["codeforces"]
    assert "```python\nclass Solution:\n    def square(self, n: int) -> int:\n```" in shown["leetcode"]
    assert load("apps", write(tmp_path / "test.jsonl", [APPS]), "base").problems()[0].prompt.endswith("```python\n")


def test_codeforces_problems_that_need_a_checker_are_left_out(tmp_path):
    rows = [CODEFORCES, CODEFORCES | {"id": "1/B", "generated_checker": "import sys"}]
    assert [p.key for p in load("codeforces", write(tmp_path / "test.jsonl", rows)).problems()] == ["codeforces/1/A"]


def test_rows_without_tests_or_with_damaged_ones_are_told(tmp_path):
    path = write(tmp_path / "test.jsonl", [{**APPS, "input_output": ""}])
    with pytest.raises(TaskError, match="apps: apps/7 has no tests; its columns are problem_id, question"):
        load("apps", path).problems()
    path = write(tmp_path / "test.jsonl", [{**APPS, "input_output": "{"}])
    with pytest.raises(TaskError, match=r"apps: apps/7: column input_output: expected JSON, found '\{'"):
        load("apps", path).problems()


def test_math500(tmp_path):
    row = {
        "problem": "What is half of one?",
        "solution": "It is $\\boxed{\\frac{1}{2}}$.",
        "answer": "\\frac{1}{2}",
        "unique_id": "test/algebra/1.json",
    }
    task = load("math500", write(tmp_path / "test.jsonl", [row]))
    problems = task.problems()
    assert validate(task, problems) == 1
    assert problems[0].prompt.endswith("put your final answer within \\boxed{}.")
    texts = ["\\boxed{0.5}", "\\boxed{2}", "", "\\boxed{\\frac12}", "<think>\\boxed{0.5}"]
    grades = [graded.scores["accuracy"] for graded in task.grade(problems * 5, texts)]
    assert grades == [1.0, 0.0, 0.0, 1.0, 0.0]


def test_the_doctor_grades_gold_programs_of_a_users_file(tmp_path):
    task = Task("data", list, grade=lambda problems, texts: [])
    good = [
        Problem("code", name, "p", columns={k: v for k, v in row.items() if k != "prompt"})
        for name, row in ROWS.items()
        if name != "livecodebench"
    ]
    assert gold_findings(task, good)[0].detail == "all 5 grade as correct"
    assert gold_of(Problem("math", "1", "p", columns={"solution": "[asy] draw [/asy] 5", "answer": "5"})) == (
        "[asy] draw [/asy] 5"
    )
    wrong = Problem("code", "bad", "p", columns=APPS | {"solutions": json.dumps(["print(4)"])})
    assert gold_findings(task, [*good, wrong])[0].detail.startswith("1 of 6 do not grade as correct; the first: bad")
    damaged = Problem("code", "damaged", "p", columns=APPS | {"input_output": "{"})
    assert gold_findings(task, [damaged])[0].detail.startswith("column input_output: expected JSON")
    assert "no gold answer" in gold_findings(task, [Problem("code", "1", "p", columns=LIVECODEBENCH)])[0].detail


def recorded(row: dict) -> tuple[list, list]:
    """The inputs of HumanEval's own tests and what the reference returns for them (the data set is trusted)."""
    names: dict = {}
    exec(row["prompt"] + row["canonical_solution"] + "\n" + row["test"], names)
    function, inputs, results = names[row["entry_point"]], [], []

    def candidate(*arguments):
        given = copy.deepcopy(list(arguments))
        result = function(*arguments)
        inputs.append(given)
        results.append(result)
        return result

    names["check"](candidate)
    return inputs, results


@pytest.mark.skipif(not HUMANEVAL.exists(), reason="HumanEval is not beside the repository")
def test_humaneval_plus_on_a_set_built_like_evalpluss(tmp_path):
    rows = [json.loads(line) for line in gzip.decompress(HUMANEVAL.read_bytes()).splitlines()]
    plus = []
    for row in rows:
        inputs, results = recorded(row)
        assert ast.literal_eval(repr(inputs)) == inputs
        test = EVALPLUS + IN_CHECK.format(inputs=inputs * 3, results=results * 3)
        plus.append({"task_id": row["task_id"], "test": test})
    options = TaskOptions(str(HUMANEVAL), "base", extra_tests_path=write(tmp_path / "plus.jsonl", plus))
    task = load_task("humaneval", options)
    problems = task.problems()
    assert validate(task, problems) == 164
    broken = [re.sub(r"(?m)^(\s+)return\b", r"\1return 'broken',", p.solution) for p in problems]
    assert [graded.scores["plus"] for graded in task.grade(problems, broken)] == [0.0] * 164
