"""The judge never runs an answer as code, and a test that would does not leave the program unscored."""

import pathlib

import pytest

from sandboxes import Job, Outcome, Sandbox

MARK = pathlib.Path("/tmp/answer-ran-in-the-judge")
TOUCH = f"__import__('os').system('touch {MARK}') or 7"


def answering(text: str) -> str:
    return f"def f(x):\n    return {text!r}\n"


@pytest.fixture(autouse=True)
def no_mark():
    MARK.unlink(missing_ok=True)
    yield
    assert not MARK.exists()


@pytest.mark.parametrize(
    ("answer", "test"),
    [
        ("3 + 4", "assert eval(f(1)) == 7"),
        ("[x * 2 for x in (1, 2)]", "assert eval(f(1)) == [2, 4]"),
        ("x * 2", "assert eval(f(1), {'x': 4}) == 8\nassert eval(f(1), {}, {'x': 3}) == 6"),
        ("g(4)", "assert eval(f(1), {'g': lambda n: n + 1}) == 5"),
        ("def g(n):\n    return n + 1", "names = {}\nexec(f(1), names)\nassert names['g'](1) == 2"),
        ("2 + 3", "assert eval(compile(f(1), 'answer', 'eval')) == 5"),
        ("[1, 2]", "import ast\nassert ast.literal_eval(f(1)) == [1, 2]"),
        ("5", "x = 2\nassert f(1) == '5'\nassert eval('x + 3') == 5\nexec('x = 9')\nassert x == 9 or f(1)"),
        ("lambda a: a + 1", "assert eval(f(1))(2) == 3"),
    ],
)
def test_text_that_is_an_answer_is_run_by_the_program(sandbox, answer, test):
    assert sandbox.run(Job(answering(answer), "f", test + "\n")).passed


@pytest.mark.parametrize(
    "test",
    [
        "assert eval(f(1)) == 8",
        "assert eval(f(1) + ' + 1') == 9",
        "import builtins\nassert builtins.eval(f(1)) == 7",
        "from builtins import exec as run\nassert run(f(1)) is not None",
        "assert (lambda g: g(f(1)))(eval) == 8",
        "assert type(f)(f(1)) == 7",
        "import os\nassert os.system(f(1)) == 7",
        "import subprocess\nassert subprocess.run(f(1), shell=True).returncode == 7",
        "import os\nassert os.popen(f(1)).read() == 7",
        "import timeit\nassert timeit.timeit(f(1), number=1) < 0",
        "import code\nassert code.InteractiveInterpreter().runsource(f(1)) == 7",
        "import collections\nassert collections.namedtuple('P', f(1)) == 7",
        "import typing\nassert typing.get_type_hints(type('A', (), {'__annotations__': {'x': f(1)}})) == 7",
        "f(1)\nopen('/tmp/answer-ran-in-the-judge', 'w')\nassert f(1) == 7",
    ],
)
def test_other_ways_to_run_an_answer_are_refused_and_scored(sandbox, test):
    verdict = sandbox.run(Job(answering(TOUCH), "f", test + "\n"))
    assert verdict.outcome in (Outcome.WRONG_ANSWER, Outcome.EXCEPTION), verdict
    assert verdict.tests_passed == 0


@pytest.mark.parametrize("expression", ["exp", "globals()['exp']", "__recorder__", "check", "f.__globals__"])
def test_an_answer_that_is_evaluated_does_not_see_what_is_expected(sandbox, expression):
    test = "def check(c):\n    exp = 5\n    assert eval(c(1)) == exp\n"
    assert not sandbox.run(Job(answering(expression), "f", test)).passed


def test_an_answer_that_is_executed_does_not_replace_what_the_test_uses(sandbox):
    test = "def same(a, b):\n    return a == b\ndef check(c):\n    exec(c(1), globals())\n    assert same(c(1), 5)\n"
    assert not sandbox.run(Job(answering("def same(a, b):\n    return True"), "f", test)).passed


def test_a_pickle_of_an_answer_calls_nothing(sandbox):
    source = (
        f"import os, pickle\nclass Bomb:\n    def __reduce__(self):\n        return os.system, ('touch {MARK}',)\n"
        "def f(x):\n    return pickle.dumps(Bomb())\n"
    )
    verdict = sandbox.run(Job(source, "f", "import pickle\nassert pickle.loads(f(1)) == 0\n"))
    assert verdict.outcome is Outcome.WRONG_ANSWER
    assert "not run by the judge" in verdict.detail


def test_text_nested_too_deep_ends_no_judge():
    texts = ("'(' * 100_000", "'-' * 100_000 + '1'", "'[' * 300 + ']' * 300", "'{1:' * 5_000", "'not ' * 50_000 + '1'")
    source = f"def f(x):\n    return [{', '.join(texts)}][x]\n"
    with Sandbox(num_slots=1) as box:
        for test in ("import ast\nfor i in range(5):\n    assert ast.literal_eval(f(i)) == 1\n",
                     "import json\nfor i in range(5):\n    assert json.loads(f(i)) == 1\n"):  # fmt: skip
            verdict = box.run(Job(source, "f", test))
            assert (verdict.outcome, verdict.tests_passed, verdict.tests_total) == (Outcome.WRONG_ANSWER, 0, 5)
        assert box.num_unscored == 0


def test_a_module_named_by_an_answer_is_the_answers_fault_and_one_the_test_lacks_is_not(sandbox):
    test = "import importlib\nassert importlib.import_module(f(1)) == 7\n"
    assert sandbox.run(Job(answering("no_such_module"), "f", test)).outcome is Outcome.WRONG_ANSWER
