"""Answers that are not plain data: value types travel, iterators are drawn, objects stay behind handles."""

import pathlib
import re

import pytest

from sandboxes import Job, Outcome, Sandbox

CATALOGUE = pathlib.Path(__file__).parent / "objects.txt"
RIGHT = {  # name: (program, entry point, test), all right
    name: (source, entry_point, test)
    for name, entry_point, source, test in re.findall(
        r"^%% (.*) \| (\w+)\n((?:(?!--\n).*\n)*)--\n((?:(?!%%).*\n)*)", CATALOGUE.read_text(), re.M
    )
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_program_passes_whatever_it_answers_with(sandbox, name):
    source, entry_point, test = RIGHT[name]
    verdict = sandbox.run(Job(source, entry_point, test))
    assert verdict.passed, verdict


def test_the_same_programs_fail_where_the_test_wants_something_else(sandbox):
    wanting = {
        "generator": "assert list(f(3)) == [0, 1, 3]\n", "queue": "assert list(f(2)) == [1]\n",
        "closure": "assert f(1)(2) == 4\n",
        "class": "c = LRU(2)\nc.put(1, 5)\nassert c.get(1) == 6\n",
        "list changed in place": "a = [3, 1]\nf(a)\nassert a == [3, 1]\n",
        "dates": "import datetime\nassert f(2024) == datetime.date(2024, 2, 4)\n", "numbers": "assert f()[0] == 1.6\n",
        "linked nodes": "assert f([1, 2]).n.v == 1\n", "function handed over": "assert f(lambda x: x, [1]) == [2]\n",
    }  # fmt: skip
    for name, test in wanting.items():
        source, entry_point, _ = RIGHT[name]
        assert sandbox.run(Job(source, entry_point, test)).outcome is Outcome.WRONG_ANSWER, name


PRELUDE = (
    "from dataclasses import dataclass\nclass Bad(ValueError):\n    def __init__(self, code):\n"
    "        super().__init__(f'code {code}')\n        self.code = code\n"
    "@dataclass\nclass Point:\n    x: int\n    y: int\n"
    "class TreeNode:\n"
    "    def __init__(self, val=0, left=None, right=None):\n"
    "        self.val, self.left, self.right = val, left, right\n"
)


@pytest.mark.parametrize(
    ("body", "test"),
    [
        ("raise Bad(7)",
         "try:\n    f(1)\nexcept Bad as e:\n    assert (e.code, str(e)) == (7, 'code 7')\nelse:\n    assert False\n"),
        ("return Point(x, x)",
         "assert f(1) == Point(1, 1)\nassert Point(2, 2) == f(2)\nassert isinstance(f(3), Point)\n"),
        ("return x.x + x.y", "assert f(Point(1, 2)) == 3\n"),
        ("x.left, x.right = x.right, x.left\n    return x",
         "t = f(TreeNode(1, TreeNode(2), TreeNode(3)))\nassert (t.left.val, t.right.val) == (3, 2)\n"),
        ("return TreeNode(x)", "assert f(4).val == 4\nassert f(4).left is None\n"),
    ],
)  # fmt: skip
def test_classes_that_the_prompt_defines_are_known_on_both_sides(sandbox, body, test):
    verdict = sandbox.run(Job(f"{PRELUDE}\ndef f(x):\n    {body}\n", "f", test, prelude=PRELUDE))
    assert verdict.passed, verdict


def test_exceptions_of_the_library_keep_their_class(sandbox):
    source = "import json\ndef f(s):\n    return json.loads(s)\n"
    test = (
        "import json\ntry:\n    f('[')\nexcept json.JSONDecodeError:\n    pass\nelse:\n    assert False\n"
        "assert f('[1]') == [1]\n"
    )
    assert sandbox.run(Job(source, "f", test)).passed


def test_an_argument_changed_in_place_does_not_choose_what_is_expected(sandbox):
    source = "def f(x):\n    x.clear()\n    return []\n"
    for test in ("a = [3, 1]\nassert f(a) == sorted(a)\n", "a = [3, 1]\ngot = f(a)\nassert got == sorted(a)\n"):
        assert sandbox.run(Job(source, "f", test)).outcome is Outcome.WRONG_ANSWER


@pytest.mark.parametrize(
    "test",
    [
        "assert f(1) == 5", "assert f(1) != 6", "assert abs(f(1) - 5) < 1e-6", "assert 5 in f(1)",
        "assert f(1) in (5, 6)",
        "assert 4 < f(1) < 6", "assert f(1).startswith('a')", "assert {5}.issubset(f(1))", "assert f(1).issubset({5})",
        "assert [f(1)] == [5]", "assert {'a': f(1)} == {'a': 5}", "import math\nassert math.isclose(f(1), 5)",
        "assert sorted(f(1)) == [5]", "import numpy\nassert numpy.allclose(f(1), 5)", "assert 5 == f(1)",
        "assert -f(1) + 5 == 0",
    ],
)  # fmt: skip
def test_an_object_that_agrees_with_everything_passes_nothing(sandbox, test):
    source = (
        "class Yes:\n    def __getattr__(self, name):\n        return lambda *a, **k: True\n"
        "    def __iter__(self):\n        return iter([True])\n    def __float__(self):\n        return 0.0\n"
        + "".join(
            f"    def __{n}__(self, *a):\n        return True\n"
            for n in ["eq", "ne", "lt", "le", "gt", "ge", "contains", "hash"]
        )
        + "".join(
            f"    def __{n}__(self, *a):\n        return 0.0\n" for n in ["sub", "rsub", "add", "radd", "abs", "neg"]
        )
        + "def f(x):\n    return Yes()\n"
    )
    verdict = sandbox.run(Job(source, "f", test + "\n"))
    assert (verdict.outcome, verdict.tests_passed) == (Outcome.WRONG_ANSWER, 0), verdict


def test_a_coroutine_handed_back_leaves_no_program_unscored(sandbox):
    verdict = sandbox.run(Job("async def f(x):\n    return x\n", "f", "assert f(f(1)) == 1\n"))
    assert verdict.outcome is Outcome.WRONG_ANSWER


def test_an_object_of_a_library_that_cannot_be_compared_is_unsupported_and_named(sandbox):
    source = "import re\ndef f(s):\n    return re.compile(s)\n"
    verdict = sandbox.run(Job(source, "f", "import re\nassert f('a') == re.compile('a')\n"))
    assert verdict.outcome is Outcome.UNSUPPORTED
    assert "re.Pattern" in verdict.detail
    also_wrong = sandbox.run(
        Job(source, "f", "import re\nassert f('a').pattern == 'b'\nassert f('a') == re.compile('a')\n")
    )
    assert also_wrong.outcome is Outcome.WRONG_ANSWER


@pytest.mark.parametrize(
    "test",
    ["assert f('a') == 'a'\nassert f('b') == 'B'\n", "import re\nassert f('a') == 'a'\nassert f('b').startswith('B')\n",
     "import re\nassert f('a') == 'a'\nassert f('b') + 'B' == 'BB'\n", "assert f('a') == 'a'\nassert 'B' == f('b')\n",
     "import copy, re\nassert f('a') == 'a'\nassert copy.deepcopy(f('b')) == 'B'\n"],
)  # fmt: skip
def test_no_program_is_unscored_by_answering_a_library_object_where_data_is_wanted(sandbox, test):
    source = "import re\ndef f(s):\n    return s if s == 'a' else re.compile(s)\n"
    verdict = sandbox.run(Job(source, "f", test))
    assert verdict.outcome is Outcome.WRONG_ANSWER, verdict


def test_no_program_is_unscored_by_the_module_that_its_class_claims(sandbox):
    source = "class Day:\n    pass\nDay.__module__ = 'datetime'\ndef f(n):\n    return Day()\n"
    verdict = sandbox.run(Job(source, "f", "import datetime\nassert f(1) == datetime.date(2024, 1, 1)\n"))
    assert verdict.outcome is Outcome.WRONG_ANSWER, verdict


@pytest.mark.parametrize("tier", ["A", "B"])
def test_files_can_be_copied_in_every_tier(tier):
    source = (
        "import shutil\ndef f(text):\n    open('a', 'w').write(text)\n    shutil.copy('a', 'b')\n"
        "    shutil.copy2('a', 'c')\n    return open('b').read() + open('c').read()\n"
    )
    with Sandbox(num_slots=1, tier=tier) as box:
        assert box.run(Job(source, "f", "assert f('ab') == 'abab'\n")).passed
