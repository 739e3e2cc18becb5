"""The conformance suite: programs with known verdicts that every backend and tier must give.

Honest programs must pass; the others must get exactly the outcomes named. Standard library only, a few seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sandboxes.contract import Job, Limits, Outcome, SandboxError, Verdict
from sandboxes.pool import Sandbox

LIMITS = Limits(cpu_seconds=2.0, wall_seconds=20.0, idle_seconds=1.0)
TEST = "def check(candidate):\n    assert candidate(20) == 21\n    assert candidate(3) == 4\n"


@dataclass(frozen=True)
class Case:
    """A program whose function `f` should add one, and the outcomes a conforming sandbox may report."""

    name: str
    source: str
    outcomes: tuple[Outcome, ...] = (Outcome.PASSED,)


@dataclass(frozen=True)
class Result:
    """What became of a case; `ok` if the outcome was one of those expected."""

    case: Case
    verdict: Verdict | SandboxError

    @property
    def ok(self) -> bool:
        """Whether the sandbox conforms here."""
        return isinstance(self.verdict, Verdict) and self.verdict.outcome in self.case.outcomes


def run(sandbox: Sandbox) -> Iterator[Result]:
    """Run every case, in order, one batch."""
    jobs = [Job(case.source, "f", TEST, limits=LIMITS) for case in CASES]
    for case, verdict in zip(CASES, sandbox.run_batch(jobs), strict=True):
        yield Result(case, verdict)


def _honest(name: str, body: str, head: str = "") -> Case:
    return Case("honest: " + name, f"{head}\ndef f(x):\n" + "".join(f"    {line}\n" for line in body.split("\n")))


def _ends(name: str, source: str, *outcomes: Outcome) -> Case:
    return Case(name, source, outcomes)


CASES = (
    _honest("plain", "return x + 1"),
    _honest("prints", "print('thinking', x)\nreturn x + 1"),
    _honest("typing and math", "return int(math.floor(x + 1.5))", "import math\nfrom typing import List"),
    _honest("threads", "t = threading.Thread(target=r.append, args=(x + 1,))\nt.start()\nt.join()\nreturn r.pop()",
            "import threading\nr = []"),
    _honest("asyncio", "return asyncio.run(g(x))", "import asyncio\nasync def g(x):\n    return x + 1"),
    _honest("tempfile", "t = tempfile.TemporaryFile()\nt.write(b'1')\nt.seek(0)\nreturn x + int(t.read())",
            "import tempfile"),
    _honest("recursion 5000", "return x + d(5000) - 4999",
            "import sys\nsys.setrecursionlimit(20000)\ndef d(n):\n    return 0 if n == 0 else 1 + d(n - 1)"),
    _honest("300 MB", "return x + 1", "data = bytearray(300 << 20)"),
    _honest("int subclass", "return MyInt(x + 1)", "class MyInt(int):\n    pass"),
    _honest("dataclasses", "return P(x).y + 1", "from dataclasses import dataclass\n@dataclass\nclass P:\n    y: int"),
    _honest("exact numbers", "return int(Decimal(x) + Fraction(2, 2).numerator)",
            "from decimal import Decimal\nfrom fractions import Fraction"),
    _honest("algorithms", "h = [x + 1, *itertools.chain([99], itertools.repeat(98, 3))]\nheapq.heapify(h)\n"
            "return bisect.bisect(range(1000), heapq.heappop(h) - 1)", "import bisect, heapq, itertools"),
    _honest("text", "return int(re.sub(r'[^0-9]+', '', json.dumps({'n': x}))) + collections.Counter('a')['a']",
            "import collections, json, re"),
    _honest("hashes, dates and chance", "random.seed(hashlib.sha256(b'x').digest())\n"
            "return (datetime.date(2024, 1, 1) + datetime.timedelta(x)).toordinal() - 738886 + random.randrange(1, 2)",
            "import datetime, hashlib, random"),
    _honest("thread pool", "with ThreadPoolExecutor(4) as pool:\n    return sum(pool.map(int, [x, 1]))",
            "from concurrent.futures import ThreadPoolExecutor"),
    _honest("generic types", "return Box[int](x).get()", "from typing import Generic, TypeVar\nT = TypeVar('T')\n"
            "class Box(Generic[T]):\n    def __init__(self, v: T):\n        self.v = v\n"
            "    def get(self) -> T:\n        return self.v + 1"),
    _honest("main guard", "return x + 1", "if __name__ == '__main__':\n    print(int(input()) + 1)"),
    _honest("lingering thread", "return x + 1",
            "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()"),
    _honest("slow exit", "return x + 1", "import atexit, time\natexit.register(time.sleep, 60)"),
    _honest("own signal handler", "os.kill(os.getpid(), signal.SIGUSR1)\nreturn x + n[0]",
            "import os, signal\nn = [0]\nsignal.signal(signal.SIGUSR1, lambda *a: n.__setitem__(0, 1))"),
    _ends("wrong answer", "def f(x):\n    return x\n", Outcome.WRONG_ANSWER),
    _ends("no answer", "def f(x):\n    pass\n", Outcome.WRONG_ANSWER),
    _ends("equals all", "class E(int):\n    __eq__ = bool\ndef f(x):\n    return E(x)\n", Outcome.WRONG_ANSWER),
    _ends("not data", "def f(x):\n    return object()\n", Outcome.WRONG_ANSWER),
    _ends("raises", "def f(x):\n    raise ValueError(x)\n", Outcome.EXCEPTION),
    _ends("does not compile", "def f(x:\n", Outcome.LOAD_ERROR),
    _ends("empty", "", Outcome.LOAD_ERROR),
    _ends("function missing", "def g(x):\n    return x + 1\n", Outcome.LOAD_ERROR),
    _ends("exit 0 at import", "import os\nos._exit(0)\n", Outcome.EXITED),
    _ends("SystemExit in the call", "def f(x):\n    raise SystemExit(0)\n", Outcome.EXITED),
    _ends("busy for ever", "while True:\n    pass\n", Outcome.TIMEOUT_CPU),
    _ends("asleep for ever", "import time\ntime.sleep(1e6)\n", Outcome.TIMEOUT_WALL),
    _ends("too much memory", "data = bytearray(64 << 30)\n", Outcome.MEMORY),
    _ends("too much output", "while True:\n    print('x' * 9999)\n", Outcome.OUTPUT_LIMIT),
    _ends("segmentation fault", "import ctypes\nctypes.string_at(0)\n", Outcome.CRASHED),
    _ends("forged bytes", "import os\nos.write(3, b'x' * 999)\n", Outcome.PROTOCOL),
    _ends("answer too large", "def f(x):\n    return 'x' * (8 << 20)\n", Outcome.PROTOCOL),
    _ends("source too large", "#" * (LIMITS.source_bytes + 1), Outcome.REJECTED),
    _ends("source not Unicode", "s = '\ud800'\n", Outcome.REJECTED),
    _ends("starts a process", "import os\nos.fork()\ndef f(x):\n    return x + 1\n", Outcome.LOAD_ERROR),
    _ends("opens a socket", "import socket\nsocket.socket()\ndef f(x):\n    return x + 1\n", Outcome.LOAD_ERROR),
    _ends("reads the host", "open('/etc/passwd')\ndef f(x):\n    return x + 1\n", Outcome.LOAD_ERROR),
    _ends("leaves a file", "open('left', 'w').close()\ndef f(x):\n    return x\n", Outcome.WRONG_ANSWER),
    _ends("finds a file left", "import os\ndef f(x):\n    return x + len(os.listdir('.'))\n", Outcome.WRONG_ANSWER),
)  # fmt: skip
