"""Every assertion is a test with a verdict of its own, and nothing a program does earns one that it has not passed."""

import pathlib
import re

import pytest

from sandboxes import Job, Outcome

GOOD = "def f(x):\n    return x + 1\n"
HALF = "def f(x):\n    return x + 1 if x < 3 else 0\n"
NONE = "def f(x):\n    return None\n"
RAISES = "def f(x):\n    raise ValueError\n"

CATALOGUE = pathlib.Path(__file__).parent / "partial_credit.txt"
TESTS = {  # name: (test, number of tests in it, how many of them HALF passes)
    name: (test, int(total), int(half))
    for name, total, half, test in re.findall(
        r"^%% (.*) \| (\d+) \| (\d+)\n((?:(?!%%).*\n)*)", CATALOGUE.read_text(), re.M
    )
}


@pytest.mark.parametrize("name", TESTS)
def test_each_assertion_and_each_round_counts(sandbox, name):
    test, total, half = TESTS[name]
    verdicts = sandbox.run_batch([Job(source, "f", test) for source in (GOOD, HALF, NONE, RAISES)])
    good, some, none, raises = verdicts
    assert (good.outcome, good.tests_passed, good.tests_total) == (Outcome.PASSED, total, total)
    assert (some.tests_passed, some.tests_total, sum(some.results)) == (half, total, half)
    assert (none.passed, none.tests_passed, raises.passed, raises.tests_passed) == (False, 0, False, 0)
    assert raises.outcome is Outcome.EXCEPTION


def test_an_assertion_that_none_would_pass_earns_nothing_alone(sandbox):
    test = "def check(c):\n    assert not c(4)\n    assert c(4) is None or c(4)\n    assert c(5)\n"
    verdict = sandbox.run(Job(NONE, "f", test))
    assert (verdict.outcome, verdict.passed_fraction) == (Outcome.WRONG_ANSWER, 0.0)
    assert sandbox.run(Job(NONE, "f", "def check(c):\n    assert c(4) is None\n")).passed


def test_what_comes_after_a_round_that_was_given_up_is_not_passed(sandbox):
    test = (
        "def check(c):\n    bad = []\n    for i in range(5):\n        if c(i) != i + 1:\n            bad.append(i)\n"
        "    assert not bad\n"
    )
    assert sandbox.run(Job(RAISES, "f", test)).tests_passed == 0
    rounds = (
        "def check(c):\n    bad = []\n    for i in range(5):\n        assert c(i) is not None\n"
        "        bad.append(c(i) == 9)\n"
    )
    verdict = sandbox.run(Job("def f(x):\n    return 1 / (3 - x)\n", "f", rounds + "    assert not any(bad)\n"))
    assert (verdict.tests_passed, verdict.tests_total) == (4, 6)


LONG = "def f(x):\n    return [1] * 10_000\n"


@pytest.mark.parametrize(
    "body",
    [
        "for x in c(5):\n        assert x > 0",
        "got = c(5)\n    for x in got:\n        assert x > 0",
        "for i in range(len(c(5))):\n        assert i >= 0 and c",
        "rest = c(5)\n    while rest:\n        assert rest.pop() > 0",
        "[one(x) for x in c(5)]\n    assert c(4)",
        "list(map(one, c(5)))\n    assert c(4)",
        "walk(c(5))",
        "for x in [y for y in c(5)]:\n        one(x)",
        "it = iter(c(5))\n    while True:\n        x = next(it, 0)\n        if not x: break\n        one(x)",
        "import itertools\n    for i in itertools.count():\n        if i >= len(c(5)):\n            break\n"
        "        assert c(i)",
    ],
)
def test_a_program_does_not_earn_more_by_answering_at_length(sandbox, body):
    helpers = (
        "def one(x):\n    assert x > 0\ndef walk(x):\n    if isinstance(x, list):\n        for y in x:\n"
        "            walk(y)\n    else:\n        assert x > 0\n"
    )
    verdict = sandbox.run(Job(LONG, "f", f"{helpers}def check(c):\n    {body}\n    assert c(2) == [2]\n"))
    assert not verdict.passed
    assert verdict.tests_passed <= 1
    assert verdict.tests_total == 2


def test_a_function_of_the_test_that_the_program_calls_earns_nothing(sandbox):
    test = "def check(c):\n    def must(v):\n        assert v == 1\n    assert c(must) == 4\n"
    verdict = sandbox.run(Job("def f(g):\n    for i in range(1000):\n        g(1)\n    return 3\n", "f", test))
    assert (verdict.tests_passed, verdict.tests_total) == (0, 1)


def test_what_a_dead_program_did_not_reach_is_not_passed(sandbox):
    test = "def check(c):\n    for i in range(10):\n        assert c(i) == i\n    assert c(10) == 10\n"
    verdict = sandbox.run(Job("import os\ndef f(x):\n    return x if x < 4 else os._exit(0)\n", "f", test))
    assert (verdict.outcome, verdict.tests_passed, verdict.tests_total) == (Outcome.EXITED, 4, 11)
    swallowing = (
        "def check(c):\n    for i in range(10):\n        try:\n            assert c(i) == i\n"
        "        except:\n            pass\n"
    )
    verdict = sandbox.run(Job("import os\ndef f(x):\n    return x if x < 4 else os._exit(0)\n", "f", swallowing))
    assert (verdict.outcome, verdict.tests_passed, verdict.tests_total) == (Outcome.EXITED, 4, 10)


def test_a_job_may_stop_at_the_first_failure(sandbox):
    test = "def check(c):\n    for i in range(10):\n        assert c(i) == i + 1\n    assert c(2) == 3\n"
    verdict = sandbox.run(Job(HALF, "f", test, stop_at_failure=True))
    assert (verdict.outcome, verdict.tests_passed, verdict.passed) == (Outcome.WRONG_ANSWER, 3, False)
    calls = [((n,), {}, n + 1) for n in (1, 5, 2)]
    verdict = sandbox.run(Job(HALF, "f", calls=calls, stop_at_failure=True))
    assert (verdict.tests_passed, verdict.tests_total) == (1, 3)
