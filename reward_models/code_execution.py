"""Scores a program by its tests, in a sandbox: assembly as HumanEval does it, one batch for all distinct programs.

It may assume the columns `test`, `entry_point` and, where the prompt shown is not the program's head, `code_prompt`.
It will not run anything in this process, and a sandbox that is out of order is None and counted, never 0.
"""

import ast
import functools
import hashlib
import logging
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from .base import text_of
from .programs import build_rollout, program_head

if TYPE_CHECKING:
    from sandboxes import Sandbox

logger = logging.getLogger(__name__)

# Outcomes that a second run would repeat; whether a time or memory limit is hit also depends on the machine.
REPEATABLE_OUTCOMES = frozenset({"passed", "wrong_answer", "exception", "load_error"})
UNSUPPORTED = "unsupported"  # an answer that cannot travel: unscored, counted, and named in the log
OUTAGE_ALARM = 0.01
MEMORY_SIZE = 20_000

Score = tuple[bool, float]  # all tests passed, fraction of tests passed


class Program(NamedTuple):
    """What a sandbox needs to judge a completion; source is untrusted, the rest comes from the problem."""

    source: str
    entry_point: str
    test: str
    prelude: str


def code_execution(
    *,
    prompts: list,
    completions: list,
    test: list[str | None],
    entry_point: list[str | None],
    code_prompt: list[str | None] | None = None,
    fraction: bool = False,
    log_metric: Callable[[str, float], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """1 if every test passes, else 0; with `fraction` the share of tests passed, in 0..1.

    None where the problem has no test, and where the sandbox failed (`code_execution/outages`: share of the programs).
    """
    code_prompt = code_prompt or [None] * len(prompts)
    jobs: dict[int, Program] = {}
    for index, (completion, tests, name) in enumerate(zip(completions, test, entry_point, strict=True)):
        if tests is not None and name is not None:
            head = program_head(code_prompt[index], text_of(prompts[index]), name)
            source = build_rollout(head, text_of(completion), name)
            jobs[index] = Program(source, name, tests, head if _compiles(head) else "")
    if not jobs:
        return [None] * len(completions)
    scores = run_programs(list(jobs.values()))
    by_index = dict(zip(jobs, scores, strict=True))
    _report_outages(scores, log_metric)
    return [_score(by_index.get(index), fraction) for index in range(len(completions))]


def run_programs(jobs: list[Program]) -> list[Score | None]:
    """Scores of programs, equal ones run once; None where the sandbox itself failed."""
    from sandboxes import Job, SandboxError

    results: dict[bytes, Score | None] = {}
    missing: dict[bytes, Program] = {}
    keys = [_key(job) for job in jobs]
    for key, job in zip(keys, jobs, strict=True):
        known = _memory.get(key)
        if known is not None:
            results[key] = known
        else:
            missing.setdefault(key, job)
    batch = [Job(**job._asdict()) for job in missing.values()]
    for key, verdict in zip(missing, sandbox().run_batch(batch) if batch else [], strict=True):
        if isinstance(verdict, SandboxError):
            logger.warning("a program could not be judged: %s", verdict)
            results[key] = None
            continue
        if verdict.outcome.value == UNSUPPORTED:
            _totals[UNSUPPORTED] += 1
            logger.warning("a program could not be judged (%d so far): %s", _totals[UNSUPPORTED], verdict.detail)
            results[key] = None
            continue
        results[key] = score = _verdict_score(verdict)
        if verdict.outcome.value in REPEATABLE_OUTCOMES:
            _memory.put(key, score)
    return [results[key] for key in keys]


@functools.cache
def sandbox() -> "Sandbox":
    """The one sandbox of this process, started when the first program comes.

    A worker waits on the kernel for most of its few milliseconds, so there are more slots than CPUs: on 2 busy CPUs, 6
    slots finished programs 2.5 times as fast as 2.
    """
    from sandboxes import Sandbox

    num_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Sandbox(num_slots=min(16, 4 * num_cpus))


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
def _compiles(head: str) -> bool:
    """True if a problem's own text (trusted) is Python by itself: the tests may then use what it defines."""
    try:
        ast.parse(head)
    except (SyntaxError, ValueError):  # a prompt in prose, or a head that ends in the middle of a function
        return False
    return True


def _key(job: Program) -> bytes:
    return hashlib.sha256("\0".join(job).encode("utf-8", "surrogatepass")).digest()


def _verdict_score(verdict: Any) -> Score:
    """(passed, share of the tests passed): every assertion, round of a loop, call or case counts, reached or not."""
    share = verdict.tests_passed / verdict.tests_total if verdict.tests_total else 0.0
    return bool(verdict.passed), share


def _score(result: Score | None, fraction: bool) -> float | None:
    if result is None:
        return None
    return result[1] if fraction else float(result[0])


def _report_outages(scores: list[Score | None], log_metric: Callable[[str, float], None] | None) -> None:
    outages = sum(score is None for score in scores)
    _totals.update(programs=len(scores), outages=outages)
    if log_metric is not None:
        log_metric("code_execution/outages", outages / len(scores))
    if _totals["outages"] > OUTAGE_ALARM * _totals["programs"]:
        logger.error(
            "the sandbox failed on %d of %d programs so far (more than %.0f %%): they are unscored, not wrong; "
            "look at the sandbox before trusting this run",
            _totals["outages"], _totals["programs"], 100 * OUTAGE_ALARM,
        )  # fmt: skip
