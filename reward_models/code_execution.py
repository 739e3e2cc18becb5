"""Scores a program by its tests, in a sandbox: assembly as HumanEval does it, one batch for all distinct programs.

It may assume the columns of a benchmark of code (code_problems.py), with `code_prompt` where the prompt shown is not
the program's head. It will not run anything in this process; a sandbox that is out of order is Unscored, never 0.
"""

import ast
import functools
import hashlib
import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .base import Unscored, text_of
from .code_problems import CODE_COLUMNS, Case, Check, Comparison, check_of
from .programs import CODE_START, assemble, program_head, script
from .reasoning import opened_reasoning

if TYPE_CHECKING:
    from sandboxes import Job, Sandbox

logger = logging.getLogger(__name__)

# Outcomes that a second run would repeat; whether a time or memory limit is hit also depends on the machine.
REPEATABLE_OUTCOMES = frozenset({"passed", "wrong_answer", "exception", "load_error"})
UNSUPPORTED = "unsupported"  # an answer that cannot travel
OUTAGE_ALARM = 0.01
MEMORY_SIZE = 20_000

Score = tuple[bool, float]  # all tests passed, fraction of tests passed


class Program(NamedTuple):
    """What a sandbox needs to judge a completion; source is untrusted, the rest comes from the problem."""

    source: str
    entry_point: str
    test: str
    prelude: str
    cases: tuple[Case, ...] = ()
    comparison: Comparison = "tokens"
    float_tolerance: float | None = None


def code_execution(
    *,
    prompts: list,
    completions: list,
    rendered_prompt: list[str | None] | None = None,
    fraction: bool = False,
    packages: Sequence[str] = (),
    log_metric: Callable[[str, float], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """1 if every test passes, else 0; with `fraction` the share of tests passed, in 0..1.

    Problems are told by their columns (code_problems.py); None where they describe none. packages: what programs may
    import beside the standard library. Unscored: `outage` (the sandbox failed; `code_execution/outages` is the share of
    them), `bad_test`, `unsupported` (an answer of a type that cannot be compared).
    """
    programs = [
        None if check is None else program(check, text_of(prompt), text_of(completion), opened)
        for check, prompt, completion, opened in zip(
            checks_of(columns, len(completions)),
            prompts,
            completions,
            opened_reasoning(prompts, rendered_prompt, len(completions)),
            strict=True,
        )
    ]
    jobs = [job for job in programs if job is not None]
    if not jobs:
        return [None] * len(completions)
    scores = run_programs(jobs, tuple(packages), stop_at_failure=not fraction)
    _report_outages(scores, log_metric)
    remaining = iter(scores)
    return [None if job is None else _score(next(remaining), fraction) for job in programs]


def checks_of(columns: Mapping[str, Any], size: int) -> list[Check | None]:
    """What judges each row of a batch, None for a row that is no code problem."""
    known = {name: columns[name] for name in CODE_COLUMNS if isinstance(columns.get(name), list)}
    return [check_of({name: values[index] for name, values in known.items()}) for index in range(size)]


def program(check: Check, prompt: str, completion: str, reasoning_opened: bool = False) -> Program:
    """The program that a completion stands for, with what judges it."""
    if check.cases:
        source = script(completion, reasoning_opened=reasoning_opened)
        return Program(source, "", "", "", check.cases, check.comparison, check.float_tolerance)
    head = check.imports + program_head(check.head, prompt, check.entry_point)
    source = assemble(head, completion, check.entry_point, reasoning_opened=reasoning_opened)
    return Program(source, check.entry_point, check.test, head if _is_code(head) else "")


def run_programs(
    jobs: list[Program], packages: tuple[str, ...] = (), *, stop_at_failure: bool = False
) -> list[Score | Unscored]:
    """Scores of programs, equal ones run once."""
    from sandboxes import SandboxError

    results: dict[bytes, Score | Unscored] = {}
    missing: dict[bytes, Program] = {}
    keys = [_key(job, packages, stop_at_failure) for job in jobs]
    for key, job in zip(keys, jobs, strict=True):
        known = _memory.get(key)
        if known is not None:
            results[key] = known
        else:
            missing.setdefault(key, job)
    batch = [_job(job, stop_at_failure) for job in missing.values()]
    for key, verdict in zip(missing, sandbox(packages).run_batch(batch) if batch else [], strict=True):
        results[key] = score = _verdict_score(verdict)
        if isinstance(score, Unscored) or isinstance(verdict, SandboxError):
            continue
        if verdict.outcome.value in REPEATABLE_OUTCOMES:
            _memory.put(key, score)
    return [results[key] for key in keys]


def _job(program: Program, stop_at_failure: bool) -> "Job":
    from sandboxes import Job

    if program.cases:
        return Job(
            program.source,
            cases=program.cases,
            comparison=program.comparison,
            float_tolerance=program.float_tolerance,
            stop_at_failure=stop_at_failure,
        )
    return Job(
        program.source,
        program.entry_point,
        test=program.test,
        prelude=program.prelude,
        stop_at_failure=stop_at_failure,
    )


@functools.cache
def sandbox(packages: tuple[str, ...] = ()) -> "Sandbox":
    """The one sandbox of this process for programs that may import `packages`, started when the first program comes."""
    from sandboxes import Sandbox, shared_sandbox

    if not packages:
        return shared_sandbox()
    found = Sandbox(num_slots=shared_sandbox().num_slots, packages=packages)
    print(
        f"[code_execution] programs may import {', '.join(packages)}; the sandbox is of tier {found.tier}", flush=True
    )
    return found


class _Memory:
    """The last verdicts, by hash of the program and its test; safe to use from several threads."""

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, threading.Lock()
        self._verdicts: OrderedDict[bytes, Score] = OrderedDict()

    def get(self, key: bytes) -> Score | None:
        with self._lock:
            if key in self._verdicts:
                self._verdicts.move_to_end(key)
            return self._verdicts.get(key)

    def put(self, key: bytes, score: Score) -> None:
        with self._lock:
            self._verdicts[key] = score
            if len(self._verdicts) > self._size:
                self._verdicts.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._verdicts.clear()


_memory = _Memory(MEMORY_SIZE)
_totals: Counter[str] = Counter()


@functools.lru_cache(maxsize=4096)
def _is_code(head: str) -> bool:
    """True if a problem's own text (trusted) is Python that defines something: the tests may then use it.

    A prompt of one word would compile as well.
    """
    if CODE_START.search(head) is None and "=" not in head:
        return False
    try:
        ast.parse(head)
    except (SyntaxError, ValueError):  # a prompt in prose, or a head that ends in the middle of a function
        return False
    return True


def _key(job: Program, packages: tuple[str, ...], stop_at_failure: bool) -> bytes:
    parts = [
        *job[:4],
        job.comparison,
        repr(job.float_tolerance),
        repr(packages),
        str(stop_at_failure),
        *(text for case in job.cases for text in case),
    ]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()


def _verdict_score(verdict: Any) -> Score | Unscored:
    """(passed, share of the tests passed): every assertion, round of a loop, call or case counts, reached or not.

    Unscored where the sandbox failed, where the test itself is unusable, and where an answer cannot travel.
    """
    from sandboxes import JobError, SandboxError

    if isinstance(verdict, SandboxError):
        logger.warning("a program could not be judged: %s", verdict)
        return Unscored("bad_test" if isinstance(verdict, JobError) else "outage")
    if verdict.outcome.value == UNSUPPORTED:
        logger.warning("a program's answer cannot be compared: %s", verdict.detail)
        return Unscored(UNSUPPORTED)
    share = verdict.tests_passed / verdict.tests_total if verdict.tests_total else 0.0
    return bool(verdict.passed), share


def _score(result: Score | Unscored, fraction: bool) -> float:
    if isinstance(result, Unscored):
        return result
    return result[1] if fraction else float(result[0])


def _report_outages(scores: list[Score | Unscored], log_metric: Callable[[str, float], None] | None) -> None:
    outages = scores.count(Unscored("outage"))
    _totals.update(programs=len(scores), outages=outages)
    if log_metric is not None:
        log_metric("code_execution/outages", outages / len(scores))
    if _totals["outages"] > OUTAGE_ALARM * _totals["programs"]:
        logger.error(
            "the sandbox failed on %d of %d programs so far (more than %.0f %%): they are unscored, not wrong; "
            "look at the sandbox before trusting this run",
            _totals["outages"], _totals["programs"], 100 * OUTAGE_ALARM,
        )  # fmt: skip
