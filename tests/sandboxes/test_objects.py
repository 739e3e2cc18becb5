"""Answers that are not plain data: value types travel, iterators are drawn, objects stay in the worker behind handles."""

import pytest

from sandboxes import Job, Outcome, Sandbox

# program, entry point, test: all right
RIGHT = {
    "generator": ("def f(n):\n    yield from range(n)\n", "f", "assert list(f(3)) == [0, 1, 2]\nassert next(f(1)) == 0\n"),
    "generator type": ("def f(n):\n    yield n\n", "f", "import types\nassert isinstance(f(1), types.GeneratorType)\n"),
    "generator taking values": ("def f():\n    got = yield 1\n    yield got * 2\n", "f",
                                "g = f()\nassert next(g) == 1\nassert g.send(5) == 10\n"),
    "endless generator": ("def f():\n    n = 0\n    while True:\n        yield n\n        n += 1\n", "f",
                          "import itertools\nassert list(itertools.islice(f(), 500)) == list(range(500))\n"),
    "lazy generator": ("def f():\n    yield 1\n    while True:\n        pass\n", "f", "assert next(f()) == 1\n"),
    "generator that raises": ("def f():\n    yield 1\n    yield 2\n    raise KeyError('k')\n", "f",
                              "got = []\ntry:\n    for x in f():\n        got.append(x)\nexcept KeyError:\n    got.append(3)\n"
                              "assert got == [1, 2, 3]\n"),
    "map, filter, zip": ("def f(x):\n    return map(str, x), filter(None, x), zip(x, x)\n", "f",
                         "a, b, c = f([0, 1])\nassert list(a) == ['0', '1']\nassert list(b) == [1]\n"
                         "assert list(c) == [(0, 0), (1, 1)]\nassert isinstance(a, map)\n"),
    "iterator equals itself only": ("def f(x):\n    return iter(x)\n", "f", "a = f([1])\nassert a != [1]\nassert a == a\n"),
    "views": ("def f(d):\n    return d.keys(), d.values(), d.items()\n", "f",
              "k, v, i = f({1: 2})\nassert k == {1}\nassert list(v) == [2]\nassert i == {(1, 2)}\nassert len(k) == 1\n"),
    "queue": ("from collections import deque\ndef f(n):\n    return deque(range(n))\n", "f", "assert list(f(2)) == [0, 1]\n"),
    "numbers": ("from fractions import Fraction\nfrom decimal import Decimal\ndef f():\n    return Fraction(3, 2), Decimal('0.1')\n",
                "f", "from decimal import Decimal\nassert f()[0] == 1.5\nassert f()[1] == Decimal('0.1')\n"),
    "dates": ("import datetime\ndef f(y):\n    return datetime.date(y, 2, 3)\n", "f",
              "import datetime\nassert f(2024) == datetime.date(2024, 2, 3)\nassert f(2024).year == 2024\n"
              "assert f(2025) - f(2024) == datetime.timedelta(366)\n"),
    "named tuple": ("from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f():\n    return P(1, 2)\n", "f",
                    "assert f() == (1, 2)\nassert f().x == 1\n"),
    "counter": ("from collections import Counter\ndef f(s):\n    return Counter(s)\n", "f",
                "assert f('aab') == {'a': 2, 'b': 1}\nassert f('aab')['z'] == 0\nassert f('aab').most_common(1) == [('a', 2)]\n"),
    "range": ("def f(n):\n    return range(n)\n", "f", "assert f(3) == range(3)\nassert list(f(2)) == [0, 1]\n"),
    "closure": ("def f(x):\n    return lambda y: x + y\n", "f", "assert f(1)(2) == 3\nassert all(f(2)(i) == i + 2 for i in range(3))\n"),
    "closure with state": ("def f():\n    n = [0]\n    def g():\n        n[0] += 1\n        return n[0]\n    return g\n", "f",
                           "g = f()\nassert (g(), g(), f()()) == (1, 2, 1)\n"),
    "function handed over": ("def f(g, xs):\n    return [g(x) for x in xs]\n", "f",
                             "assert f(lambda x: x * 2, [1, 2]) == [2, 4]\n"),
    "decorator": ("def f(g):\n    def inner(*a):\n        return g(*a) + 1\n    return inner\n", "f",
                  "assert f(lambda x: x * 2)(4) == 9\n"),
    "its error comes back": ("def f(g):\n    try:\n        g()\n    except KeyError as e:\n        return e.args[0]\n", "f",
                             "def bad():\n    raise KeyError('k')\nassert f(bad) == 'k'\n"),
    "class": ("class LRU:\n    def __init__(self, n):\n        self.n, self.d = n, {}\n    def put(self, k, v):\n        self.d[k] = v\n"
              "    def get(self, k):\n        return self.d.get(k, -1)\n    def __len__(self):\n        return len(self.d)\n", "LRU",
              "c = LRU(2)\nc.put(1, 5)\nassert c.get(1) == 5\nassert c.get(2) == -1\nassert len(c) == 1\nassert c.n == 2\n"
              "assert isinstance(c, LRU)\n"),
    "class with operators": ("class Vec:\n    def __init__(self, x):\n        self.x = x\n    def __add__(self, o):\n"
                             "        return Vec(self.x + o.x)\n    def __mul__(self, k):\n        return Vec(self.x * k)\n"
                             "    def __eq__(self, o):\n        return self.x == o.x\n    def __repr__(self):\n"
                             "        return f'Vec({self.x})'\n", "Vec",
                             "assert Vec(1) + Vec(2) == Vec(3)\nassert (Vec(2) * 3).x == 6\nassert repr(Vec(1)) == 'Vec(1)'\n"
                             "assert Vec(1) != Vec(2)\n"),
    "class that is a list": ("class Stack(list):\n    def peek(self):\n        return self[-1]\n", "Stack",
                             "s = Stack()\ns.append(4)\nassert s.peek() == 4\nassert len(s) == 1\n"),
    "context manager": ("class Box:\n    def __enter__(self):\n        self.open = True\n        return self\n"
                        "    def __exit__(self, *a):\n        self.open = False\n", "Box",
                        "b = Box()\nwith b as c:\n    assert c.open\nassert not b.open\n"),
    "class method": ("class A:\n    @classmethod\n    def make(cls, n):\n        a = cls()\n        a.n = n\n        return a\n", "A",
                     "assert A.make(3).n == 3\n"),
    "linked nodes": ("class Node:\n    def __init__(self, v, n=None):\n        self.v, self.n = v, n\ndef f(xs):\n    h = None\n"
                     "    for x in reversed(xs):\n        h = Node(x, h)\n    return h\n", "f",
                     "h, got = f([1, 2, 3]), []\nwhile h:\n    got.append(h.v)\n    h = h.n\nassert got == [1, 2, 3]\n"),
    "match object": ("import re\ndef f(s):\n    return re.match('(a+)b', s)\n", "f", "assert f('aab').group(1) == 'aa'\n"),
    "coroutine": ("async def f(n):\n    return n + 1\n", "f", "import asyncio\nassert asyncio.run(f(1)) == 2\n"),
    "its name": ("def f(n):\n    return n\n", "f", "assert f.__name__ == 'f'\nassert f(1) == 1\n"),
    "list changed in place": ("def f(x):\n    x.sort()\n", "f", "a = [3, 1]\nassert f(a) is None\nassert a == [1, 3]\n"),
    "matrix changed in place": ("def f(m):\n    m[0][0], m[1] = 9, [7]\n", "f",
                                "m = [[1], [2]]\nfirst = m[0]\nf(m)\nassert m == [[9], [7]]\nassert first is m[0]\n"),
    "shared rows": ("def f(m):\n    m[0][0] = 5\n", "f", "m = [[0]] * 2\nf(m)\nassert m == [[5], [5]]\n"),
    "in place with a length": ("def f(n):\n    n[:] = sorted(set(n))\n    return len(n)\n", "f",
                               "n = [2, 2, 1]\nk = f(n)\nassert n[:k] == [1, 2]\n"),
    "in place, part of a case": ("def f(n):\n    n.reverse()\n", "f",
                                 "for case in [([1, 2], [2, 1]), ([], [])]:\n    f(case[0])\n    assert case[0] == case[1]\n"),
    "left alone": ("def f(x):\n    return sorted(x)\n", "f", "a = [3, 1]\nassert f(a) == [1, 3]\nassert a == [3, 1]\n"),
    "the same list": ("def f(x):\n    x.append(1)\n    return x\n", "f", "a = []\nassert f(a) is a\nassert a == [1]\n"),
    "dict and set in place": ("def f(d, s):\n    d['a'] = s.pop()\n", "f", "d, s = {}, {4}\nf(d, s)\nassert (d, s) == ({'a': 4}, set())\n"),
    "queue in place": ("def f(q):\n    q.appendleft(0)\n", "f",
                       "from collections import deque\nq = deque([1])\nf(q)\nassert list(q) == [0, 1]\n"),
    "long list": ("def f(n):\n    return list(range(n))\n", "f", "assert f(200_000) == list(range(200_000))\n"),
    "deep list": ("def f(n):\n    x = []\n    for _ in range(n):\n        x = [x]\n    return x\n", "f",
                  "x = []\nfor _ in range(100):\n    x = [x]\nassert f(100) == x\n"),
    "large integer": ("def f(n):\n    return n ** 6788\n", "f", "assert f(7) == 7 ** 6788\n"),
    "40 threads": ("import threading\ndef f(n):\n    e = threading.Event()\n    ts = [threading.Thread(target=e.wait) for _ in range(n)]\n"
                   "    for t in ts:\n        t.start()\n    e.set()\n    for t in ts:\n        t.join()\n    return len(ts)\n", "f",
                   "assert f(40) == 40\n"),
    "100 KB printed": ("def f(n):\n    print('x' * n)\n    return n\n", "f", "assert f(100_000) == 100_000\n"),
    "threads in the test": ("def f(n):\n    return n + 1\n", "f",
                            "import threading\nfrom concurrent.futures import ThreadPoolExecutor\ngot = []\n"
                            "ts = [threading.Thread(target=lambda i=i: got.append(f(i))) for i in range(8)]\n"
                            "for t in ts:\n    t.start()\nfor t in ts:\n    t.join()\nassert sorted(got) == list(range(1, 9))\n"
                            "with ThreadPoolExecutor(4) as pool:\n    assert list(pool.map(f, range(20))) == list(range(1, 21))\n"),
    "time zone": ("import datetime, zoneinfo\ndef f(n):\n    return datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo(n))\n", "f",
                  "import datetime\nassert f('Europe/Paris').utcoffset() == datetime.timedelta(hours=2)\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_program_passes_whatever_it_answers_with(sandbox, name):
    source, entry_point, test = RIGHT[name]
    verdict = sandbox.run(Job(source, entry_point, test))
    assert verdict.passed, verdict


def test_the_same_programs_fail_where_the_test_wants_something_else(sandbox):
    wanting = {
        "generator": "assert list(f(3)) == [0, 1, 3]\n", "queue": "assert list(f(2)) == [1]\n", "closure": "assert f(1)(2) == 4\n",
        "class": "c = LRU(2)\nc.put(1, 5)\nassert c.get(1) == 6\n", "list changed in place": "a = [3, 1]\nf(a)\nassert a == [3, 1]\n",
        "dates": "import datetime\nassert f(2024) == datetime.date(2024, 2, 4)\n", "numbers": "assert f()[0] == 1.6\n",
        "linked nodes": "assert f([1, 2]).n.v == 1\n", "function handed over": "assert f(lambda x: x, [1]) == [2]\n",
    }  # fmt: skip
    for name, test in wanting.items():
        source, entry_point, _ = RIGHT[name]
        assert sandbox.run(Job(source, entry_point, test)).outcome is Outcome.WRONG_ANSWER, name


PRELUDE = (
    "from dataclasses import dataclass\nclass Bad(ValueError):\n    def __init__(self, code):\n        super().__init__(f'code {code}')\n"
    "        self.code = code\n@dataclass\nclass Point:\n    x: int\n    y: int\nclass TreeNode:\n"
    "    def __init__(self, val=0, left=None, right=None):\n        self.val, self.left, self.right = val, left, right\n"
)


@pytest.mark.parametrize(
    ("body", "test"),
    [
        ("raise Bad(7)", "try:\n    f(1)\nexcept Bad as e:\n    assert (e.code, str(e)) == (7, 'code 7')\nelse:\n    assert False\n"),
        ("return Point(x, x)", "assert f(1) == Point(1, 1)\nassert Point(2, 2) == f(2)\nassert isinstance(f(3), Point)\n"),
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
    test = "import json\ntry:\n    f('[')\nexcept json.JSONDecodeError:\n    pass\nelse:\n    assert False\nassert f('[1]') == [1]\n"
    assert sandbox.run(Job(source, "f", test)).passed


def test_an_argument_changed_in_place_does_not_choose_what_is_expected(sandbox):
    source = "def f(x):\n    x.clear()\n    return []\n"
    for test in ("a = [3, 1]\nassert f(a) == sorted(a)\n", "a = [3, 1]\ngot = f(a)\nassert got == sorted(a)\n"):
        assert sandbox.run(Job(source, "f", test)).outcome is Outcome.WRONG_ANSWER


@pytest.mark.parametrize(
    "test",
    [
        "assert f(1) == 5", "assert f(1) != 6", "assert abs(f(1) - 5) < 1e-6", "assert 5 in f(1)", "assert f(1) in (5, 6)",
        "assert 4 < f(1) < 6", "assert f(1).startswith('a')", "assert {5}.issubset(f(1))", "assert f(1).issubset({5})",
        "assert [f(1)] == [5]", "assert {'a': f(1)} == {'a': 5}", "import math\nassert math.isclose(f(1), 5)",
        "assert sorted(f(1)) == [5]", "import numpy\nassert numpy.allclose(f(1), 5)", "assert 5 == f(1)", "assert -f(1) + 5 == 0",
    ],
)  # fmt: skip
def test_an_object_that_agrees_with_everything_passes_nothing(sandbox, test):
    source = (
        "class Yes:\n    def __getattr__(self, name):\n        return lambda *a, **k: True\n"
        "    def __iter__(self):\n        return iter([True])\n    def __float__(self):\n        return 0.0\n"
        + "".join(
            f"    def __{n}__(self, *a):\n        return True\n" for n in ["eq", "ne", "lt", "le", "gt", "ge", "contains", "hash"]
        )
        + "".join(f"    def __{n}__(self, *a):\n        return 0.0\n" for n in ["sub", "rsub", "add", "radd", "abs", "neg"])
        + "def f(x):\n    return Yes()\n"
    )
    verdict = sandbox.run(Job(source, "f", test + "\n"))
    assert (verdict.outcome, verdict.tests_passed) == (Outcome.WRONG_ANSWER, 0), verdict


def test_an_object_of_a_library_that_cannot_be_compared_is_unsupported_and_named(sandbox):
    source = "import re\ndef f(s):\n    return re.compile(s)\n"
    verdict = sandbox.run(Job(source, "f", "import re\nassert f('a') == re.compile('a')\n"))
    assert verdict.outcome is Outcome.UNSUPPORTED
    assert "re.Pattern" in verdict.detail
    also_wrong = sandbox.run(
        Job(source, "f", "import re\nassert f('a').pattern == 'b'\nassert f('a') == re.compile('a')\n")
    )
    assert also_wrong.outcome is Outcome.WRONG_ANSWER


@pytest.mark.parametrize("tier", ["A", "B"])
def test_files_can_be_copied_in_every_tier(tier):
    source = (
        "import shutil\ndef f(text):\n    open('a', 'w').write(text)\n    shutil.copy('a', 'b')\n    shutil.copy2('a', 'c')\n"
        "    return open('b').read() + open('c').read()\n"
    )
    with Sandbox(num_slots=1, tier=tier) as box:
        assert box.run(Job(source, "f", "assert f('ab') == 'abab'\n")).passed
