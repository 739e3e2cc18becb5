"""Programs that read stdin and write stdout, methods of a Solution class, and lists of asserts."""

import pathlib
import re

import pytest

from sandboxes import Job, JobError, Limits, Outcome, Sandbox, Verdict, assert_list, comparison

ADDS = "a, b = map(int, input().split())\nprint(a + b)\n"
CASES = [("1 2\n", "3\n"), ("5 5", "10"), ("0 -4\n", "-4")]

PROGRAMS = {
    "input": ADDS,
    "sys.stdin": "import sys\nprint(sum(int(x) for line in sys.stdin for x in line.split()))\n",
    "buffer": "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))\n",
    "open(0)": "print(sum(map(int, open(0).read().split())))\n",
    "os.read": "import os\nprint(sum(map(int, os.read(0, 100).split())))\n",
    "main guard": "def main():\n    print(sum(map(int, input().split())))\nif __name__ == '__main__':\n    main()\n",
    "thread": "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**26)\ndef main():\n"
              "    print(sum(map(int, input().split())))\nthreading.Thread(target=main).start()\n",
    "exit": "import sys\nsys.stdout.write(str(sum(map(int, input().split()))))\nsys.exit()\n",
    "os._exit": "import os, sys\nprint(sum(map(int, input().split())))\nsys.stdout.flush()\nos._exit(0)\n",
    "atexit": "import atexit\nn = sum(map(int, input().split()))\natexit.register(lambda: print(n))\n",
    "stderr": "import sys\nprint('thinking', file=sys.stderr)\nprint(sum(map(int, input().split())))\n",
    "future": "from __future__ import annotations\n" + ADDS,
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_ways_to_read_and_write(sandbox, name):
    verdict = sandbox.run(Job(PROGRAMS[name], cases=CASES))
    assert (verdict.outcome, verdict.results) == (Outcome.PASSED, (True,) * 3), verdict


@pytest.mark.parametrize(
    ("source", "outcome", "results"),
    [
        ("print(3)\n", Outcome.WRONG_ANSWER, (True, False, False)),
        ("print(10 // int(input().split()[0]))\n", Outcome.WRONG_ANSWER, (False, False, False)),
        ("a, b = map(int, input().split())\nprint((a + b) * a // a)\n", Outcome.EXCEPTION, (True, True, False)),
        ("import sys\nprint(3)\nsys.exit(1)\n", Outcome.EXITED, (False,) * 3),
        ("def f(:\n", Outcome.EXCEPTION, (False,) * 3),
        ("", Outcome.WRONG_ANSWER, (False,) * 3),
        ("while True:\n    pass\n", Outcome.TIMEOUT_CPU, (False,) * 3),
        ("data = bytearray(9 << 30)\n", Outcome.MEMORY, (False,) * 3),
    ],
)
def test_every_case_has_a_verdict(sandbox, source, outcome, results):
    limits = Limits(cpu_seconds=0.5, wall_seconds=30)
    verdict = sandbox.run(Job(source, cases=CASES, limits=limits))
    assert (verdict.outcome, verdict.results, verdict.tests_total) == (outcome, results, 3)
    assert verdict.passed_fraction == pytest.approx(sum(results) / 3)


def test_cases_do_not_see_each_other_and_inputs_may_be_large(sandbox):
    source = "import os\nopen('left', 'w').close()\nprint(len(os.listdir('.')), len(input()))\n"
    assert sandbox.run(Job(source, cases=[("x" * n, f"1 {n}") for n in (1, 2_000_000)])).passed


def test_an_input_that_does_not_fit_is_an_error_and_no_verdict(sandbox):
    limits = Limits(file_bytes=1000)
    with pytest.raises(JobError, match="file_bytes"):
        sandbox.run(Job(ADDS, cases=[("1 2" + " " * 1000, "3")], limits=limits))


def test_a_script_may_stop_at_its_first_failure(sandbox):
    verdict = sandbox.run(Job("print(10)\n", cases=CASES, stop_at_failure=True))
    assert verdict.results == (False, False, False)


@pytest.mark.parametrize(
    ("printed", "expected", "rule", "tolerance", "right"),
    [
        ("1 2\n3\n", "1 2 3", "tokens", None, True),
        ("1 2\n3\n", "1 2 3", "lines", None, False),
        ("1 2 \n3\n\n", "1 2\n3", "lines", None, True),
        ("1  2\n", "1 2", "lines", None, True),
        ("1 2\n", "1 2", "exact", None, False),
        ("1 2\n", "1 2\n", "exact", None, True),
        ("", "1", "tokens", None, False),
        ("1 2", "1", "tokens", None, False),
        ("1", "1 2", "tokens", None, False),
        ("Yes", "YES", "tokens", None, False),
        ("0.333334", "0.333333", "tokens", None, False),
        ("0.333334", "0.333333", "tokens", 1e-4, True),
        ("1e9", "1000000000", "tokens", 1e-9, True),
        ("0.34", "0.33", "tokens", 1e-4, False),
        ("nan", "nan1", "tokens", 1e9, False),
        ("inf", "1", "tokens", 1e9, False),
        ("1_0", "10", "tokens", 1e-6, False),
        ("abc", "abd", "tokens", 1e9, False),
    ],
)
def test_outputs_are_compared_by_the_rules_of_the_sets(printed, expected, rule, tolerance, right):
    assert comparison.matches(printed, expected, rule, tolerance) is right


def hostile_scripts() -> list[tuple[str, str, set[str]]]:
    text = (pathlib.Path(__file__).parent / "hostile_scripts.txt").read_text()
    found = re.findall(r"^%% (\w+) \| (.*)\n((?:(?!%%).*\n)*)", text, re.M)
    return [(name, source, set(outcomes.split())) for name, outcomes, source in found]


@pytest.mark.parametrize("tier", ["A", "B"])
def test_no_hostile_script_earns_a_case(tier):
    scripts = hostile_scripts()
    assert len(scripts) >= 15
    limits = Limits(cpu_seconds=1.0, wall_seconds=30.0, idle_seconds=1.0)
    cases = [("5\n", "1234567890123\n"), ("6\n", "1234567890123\n")]
    with Sandbox(num_slots=2, tier=tier, limits=limits) as box:
        results = box.run_batch([Job(source, cases=cases, float_tolerance=1e-6) for _, source, _ in scripts])
    for (name, _, outcomes), result in zip(scripts, results, strict=True):
        assert isinstance(result, Verdict), (name, result)
        assert (result.tests_passed, result.outcome.value in outcomes) == (0, True), (name, result)


SOLUTION = (
    "class Solution:\n    def two_sum(self, nums, k):\n        return [i for i, n in enumerate(nums) if n == k]\n"
)


@pytest.mark.parametrize("entry_point", ["Solution().two_sum", "two_sum"])
def test_methods_of_a_solution_class(sandbox, entry_point):
    test = (
        "def check(candidate):\n    assert candidate([3, 5], 5) == [1]\n    assert candidate([1, 1], k=1) == [0, 1]\n"
    )
    assert sandbox.run(Job(SOLUTION, entry_point, test)).passed
    assert sandbox.run(Job(SOLUTION, entry_point, calls=[(([4], 4), {}, [0])])).passed
    assert sandbox.run(Job(SOLUTION.replace("== k", "!= k"), entry_point, test)).outcome is Outcome.WRONG_ANSWER
    assert sandbox.run(Job("class Solution:\n    pass\n", entry_point, test)).outcome is Outcome.LOAD_ERROR


def test_a_list_of_asserts_names_its_function(sandbox):
    asserts = ["assert set(similar((3, 4), (5, 4))) == set((4,))", "assert similar((1,), (2,)) == ()"]
    test, entry_point = assert_list(asserts, "import math")
    assert entry_point == "similar"
    right = "def similar(a, b):\n    return tuple(set(a) & set(b))\n"
    assert sandbox.run(Job(right, entry_point, test)).results == (True, True)
    assert sandbox.run(Job("def similar(a, b):\n    return ()\n", entry_point, test)).results == (False, True)
    height = "class Node:\n    def __init__(self, v):\n        self.v, self.left = v, None\n"
    height += "def height(n):\n    return 0 if n is None else 1 + height(n.left)\n"
    test, entry_point = assert_list(["assert height(root) == 2"], "root = Node(1)\nroot.left = Node(2)")
    assert sandbox.run(Job(height, entry_point, test)).passed
    assert not sandbox.run(Job(height.replace("1 +", "2 +"), entry_point, test)).passed
    assert sandbox.run(Job("def height(n):\n    return 2\n", entry_point, test)).outcome is Outcome.EXCEPTION
    for broken in (["assert 1 == 1"], ["assert ("], []):
        with pytest.raises(JobError):
            assert_list(broken)


@pytest.mark.parametrize(
    "arguments", [{"cases": []}, {"cases": [("", "")], "comparison": "nearly"}, {"test": "assert f()"}]
)
def test_senseless_jobs_are_refused(arguments):
    with pytest.raises(ValueError, match="Job"):
        Job("", **arguments)
