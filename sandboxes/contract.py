"""The nouns of the sandbox: what goes in (Job, Limits) and what comes out (Verdict, Outcome, SandboxError).

Pure data, standard library only; shared by the trainer's side and the judge's side.
Nothing here runs anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any

MEBIBYTE = 1 << 20
COMPARISONS = ("tokens", "lines", "exact")


class SandboxError(RuntimeError):
    """Trouble of the sandbox itself: the job is unscored. It is never evidence about the program."""


class JobError(SandboxError):
    """The trusted half of a job is unusable: the test does not compile, lacks a name, or passes what is not data."""


class Outcome(Enum):
    """How one job ended. Only `PASSED` is success; all but `UNSUPPORTED` are the program's own doing."""

    PASSED = "passed"
    WRONG_ANSWER = "wrong_answer"
    EXCEPTION = "exception"  # the function raised
    LOAD_ERROR = "load_error"  # the text did not compile, raised at import, or lacks the function
    EXITED = "exited"  # left (sys.exit, os._exit) before it had answered
    TIMEOUT_CPU = "timeout_cpu"
    TIMEOUT_WALL = "timeout_wall"  # wall clock, or idle for too long
    MEMORY = "memory"
    OUTPUT_LIMIT = "output_limit"
    CRASHED = "crashed"  # killed by a signal it caused
    PROTOCOL = "protocol"  # answered with something that is not a well-formed answer
    REJECTED = "rejected"  # never run: too large or not encodable
    UNSUPPORTED = "unsupported"  # the test wants of an object of some library what only data can give: unscored


@dataclass(frozen=True)
class Limits:
    """Limits of one job. A job's own limits replace the sandbox's as a whole.

    Times are seconds, sizes are bytes. CPU time is the measure that counts: a loaded machine stretches wall time only.
    """

    cpu_seconds: float = 4.0
    wall_seconds: float = 12.0  # not counting up to twice as much spent waiting for a CPU
    idle_seconds: float = 5.0  # neither running nor waiting for a CPU
    memory_bytes: int = 1024 * MEBIBYTE  # address space of the program
    num_processes: int = 0  # child processes
    num_threads: int = 64
    num_open_files: int = 64
    file_bytes: int = 8 * MEBIBYTE  # size of one file
    disk_bytes: int = 16 * MEBIBYTE  # all files together
    num_inodes: int = 256
    output_bytes: int = MEBIBYTE  # stdout and stderr together
    source_bytes: int = 256 * 1024
    result_bytes: int = 8 * MEBIBYTE  # one encoded answer
    result_depth: int = 200  # nesting of one answer

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
                raise ValueError(f"Limits.{spec.name} must be a number >= 0, not {value!r}")
        if self.cpu_seconds <= 0 or self.wall_seconds <= 0:
            raise ValueError("Limits.cpu_seconds and Limits.wall_seconds must be above 0")

    def as_dict(self) -> dict[str, float | int]:
        """The limits as plain data, for the wire and for run records."""
        return asdict(self)


@dataclass(frozen=True)
class Job:
    """One untrusted program and the trusted means to judge it.

    Give one of `test` (text that defines `check(candidate)`, or that calls the function by its name; executed on the
    judge's side against a proxy of the function), `calls` (data only: positional arguments, keyword arguments, expected
    result) and `cases` (of a program that reads stdin and writes stdout: input and expected output, compared as
    `comparison` and `float_tolerance` say, see comparison.py). The test text and `prelude` are trusted; `source` is
    not, and meets neither. `prelude` is trusted text whose definitions the test may use (for HumanEval: the prompt,
    which defines helpers such as `poly`).

    `entry_point` names a function, a class, or a method as in `Solution().two_sum`. With `stop_at_failure` the first
    test that fails is the last one made, which is cheaper where the share of tests passed is not wanted.

    `test_in_sandbox` is a lower level of trust, for tests that hand objects or functions to the candidate: `test` then
    runs beside the program, which can forge the result. The sandbox must allow it, and the verdict says `forgeable`.
    """

    source: str
    entry_point: str = ""
    test: str | None = None
    calls: Sequence[tuple[Sequence[Any], dict[str, Any], Any]] | None = None
    limits: Limits | None = None
    prelude: str = ""
    test_in_sandbox: bool = False
    cases: Sequence[tuple[str, str]] | None = None
    comparison: str = "tokens"
    float_tolerance: float | None = None
    stop_at_failure: bool = False

    def __post_init__(self) -> None:
        if self.test_in_sandbox and self.test is None:
            raise ValueError("Job.test_in_sandbox needs test=")
        if sum(way is not None for way in (self.test, self.calls, self.cases)) != 1:
            raise ValueError("a Job needs exactly one of test=, calls= and cases=")
        if self.cases is None and not self.entry_point:
            raise ValueError("a Job with test= or calls= needs entry_point=")
        for name in ("calls", "cases"):
            if getattr(self, name) is not None and not getattr(self, name):
                raise ValueError(f"Job.{name} is empty: nothing would be tested")
        if self.comparison not in COMPARISONS:
            raise ValueError(f"Job.comparison must be one of {', '.join(COMPARISONS)}, not {self.comparison!r}")


@dataclass(frozen=True)
class Verdict:
    """What the judge found. Times are seconds of the program alone; stdout and stderr are cut at the output limit.

    `results` has one entry for each test: an assertion or a round of a loop with assertions in it, a call, a case. What
    was not reached did not pass. `exit_status` is the program's exit code, negative for a signal, None if it was still
    alive when it had answered everything.
    """

    outcome: Outcome
    tests_passed: int = 0
    tests_total: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    exit_status: int | None = None
    stdout: str = ""
    stderr: str = ""
    detail: str = field(default="", compare=False)
    forgeable: bool = False  # the test ran beside the program: not for rewards
    results: tuple[bool, ...] = field(default=(), repr=False)

    @property
    def passed(self) -> bool:
        """True if every test passed."""
        return self.outcome is Outcome.PASSED

    @property
    def passed_fraction(self) -> float:
        """The share of the tests that passed, in 0..1."""
        return self.tests_passed / self.tests_total if self.tests_total else 0.0
