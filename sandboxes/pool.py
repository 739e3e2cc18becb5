"""The trainer's side: `Sandbox` hands jobs to the slots and collects verdicts.

Never forks the calling process and never runs a program's or a test's text. Thread-safe.
Trouble of the sandbox is retried on a fresh slot, once or, if it comes quickly, more often; then it is a SandboxError.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sandboxes import backends
from sandboxes.contract import Job, JobError, Limits, Outcome, SandboxError, Verdict
from sandboxes.packages import locate
from sandboxes.program import PATIENCE
from sandboxes.requests import request
from sandboxes.slot import JudgeOverran, Slot, SlotLost
from sandboxes.survey import Report, survey

_STARTS = 3  # of a slot, before a job counts as tried
_MOST_TRIES = 8  # of a job; the second always, more only within its wall clock limit
ALARM_SHARE = 0.01  # of jobs left unscored
logger = logging.getLogger("sandboxes")


class Sandbox:
    """Runs untrusted Python programs against trusted tests. A context manager; starts on first use.

    `num_slots` (default: the CPUs this process may use, at most 16) programs run at a time. `tier` is "auto", "A", "B"
    or "C"; `backend` says who runs the programs (see backends.py). What does not deny everything it should (tier C,
    most remote services) must be allowed by `allow_weak_sandbox`. `allow_tests_in_sandbox` lets jobs ask for verdicts
    that can be forged: not for rewards. Programs may import the standard library and `packages`, tests these and
    `test_packages` (default: numpy, if installed). Raises SandboxError if the machine offers no allowed tier.
    """

    def __init__(
        self,
        num_slots: int | None = None,
        limits: Limits | None = None,
        *,
        tier: str = "auto",
        backend: str = backends.LOCAL,
        allow_weak_sandbox: bool = False,
        allow_tests_in_sandbox: bool = False,
        packages: Sequence[str] = (),
        test_packages: Sequence[str] | None = None,
    ):
        if num_slots is not None and num_slots < 1:
            raise ValueError("num_slots must be at least 1")
        self.num_slots = num_slots or min(_num_cpus(), 16)
        self.limits = limits or Limits()
        if packages and backend not in (backends.LOCAL, backends.BUBBLEWRAP):
            raise ValueError(f"packages= is for this machine's own; install them where {backend!r} runs programs")
        self.backend, self._tiers = backend, backends.tiers(backend, tier)
        self._allow_weak, self._allow_tests_in_sandbox = allow_weak_sandbox, allow_tests_in_sandbox
        self._packages, self._imports = locate(packages), list(packages)
        for_tests = ("numpy", *packages) if test_packages is None else test_packages
        self._test_packages = locate(for_tests, optional=test_packages is None)
        self.num_jobs = self.num_unscored = 0  # judged so far; of these, not scored because of the sandbox
        self._lock = threading.RLock()  # the survey at start runs a job
        self._owner_pid = self._ready_pid = 0
        self._idle: queue.LifoQueue[Slot | None] = queue.LifoQueue()
        self._slots: set[Slot] = set()
        self._threads: ThreadPoolExecutor | None = None
        self._report = Report("none")

    def start(self) -> Sandbox:
        """Start now and find the tier, by trying what it must deny. Idempotent. Raises SandboxError."""
        if self._ready_pid == os.getpid():
            return self
        with self._lock:
            if self._owner_pid == os.getpid():
                return self
            if sys.platform != "linux":
                raise SandboxError(f"the sandbox is made of Linux kernel features; this is {sys.platform}")
            self._owner_pid = os.getpid()
            self._idle, self._slots, self._threads = queue.LifoQueue(), set(), None
            for _ in range(self.num_slots):
                self._idle.put(None)  # started when first needed
            try:
                self._report = self._choose_tier()
            except BaseException:
                self._owner_pid = 0
                raise
            self._ready_pid = self._owner_pid
            atexit.register(self.close)
        return self

    @property
    def report(self) -> Report:
        """Tier in use, what it lets through and why no better one is in use. Starts the sandbox if needed."""
        return self.start()._report

    @property
    def tier(self) -> str:
        """The isolation tier in use: A, B or C. Starts the sandbox if needed."""
        return self.report.tier

    def run(self, job: Job) -> Verdict:
        """The verdict on one job. Raises SandboxError if the sandbox failed repeatedly or the test is unusable."""
        result = self._run(job)
        if isinstance(result, SandboxError):
            raise result
        return result

    def run_batch(self, jobs: Sequence[Job]) -> list[Verdict | SandboxError]:
        """Results in the order of `jobs`, every slot kept busy. A SandboxError stands in for an unscored job."""
        jobs = list(jobs)
        if min(self.num_slots, len(jobs)) <= 1:
            return [self._run(job) for job in jobs]
        self.start()
        return list(self._executor().map(self._run, jobs))

    async def run_async(self, job: Job) -> Verdict:
        """`run` for an event loop; any number may be awaited together."""
        self.start()
        return await asyncio.get_running_loop().run_in_executor(self._executor(), self.run, job)

    def close(self) -> None:
        """End all helper processes. The sandbox starts again if it is used again."""
        with self._lock:
            if self._owner_pid != os.getpid():
                return
            self._owner_pid = self._ready_pid = 0
            slots, self._slots = self._slots, set()
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=True, cancel_futures=True)
        for slot in slots:
            slot.link.close()  # all at once, so that the judges clean up side by side
        for slot in slots:
            slot.close()
        atexit.unregister(self.close)

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.num_slots, thread_name_prefix="sandbox")
            return self._threads

    def _run(self, job: Job) -> Verdict | SandboxError:
        limits = job.limits or self.limits
        wire = request(job, limits, self._allow_tests_in_sandbox)
        if isinstance(wire, Verdict | SandboxError):
            return wire
        self.start()
        trouble, started = "", time.monotonic()
        for attempt in range(_MOST_TRIES):
            if attempt >= 2 and time.monotonic() > started + limits.wall_seconds:
                break
            try:
                reply = self._execute(wire, limits)
            except JudgeOverran:
                self.num_jobs += 1
                return Verdict(Outcome.TIMEOUT_WALL, detail="the test overran on the program's answers")
            except (SlotLost, SandboxError, OSError) as error:
                trouble = str(error)
                continue
            self.num_jobs += 1
            if "verdict" in reply:
                return _verdict(reply["verdict"], forgeable=job.test_in_sandbox)
            trouble = reply["trouble"]
            if not reply["retry"]:
                return JobError(trouble)
        self._count_unscored(trouble)
        return SandboxError(trouble)

    def _count_unscored(self, trouble: str) -> None:
        self.num_unscored += 1
        share = self.num_unscored / max(self.num_jobs, 1)
        if share > ALARM_SHARE and self.num_jobs >= 100:
            logger.error("the sandbox failed on %.1f %% of %d jobs, last: %s", 100 * share, self.num_jobs, trouble)

    def _execute(self, wire: dict[str, Any], limits: Limits) -> dict[str, Any]:
        """Run the request `wire` on a free slot; a lost slot is thrown away and its place kept."""
        slot = self._idle.get()
        try:
            if slot is None:
                slot = self._replacement()
            reply = slot.execute(wire, limits)
        except BaseException:
            if slot is not None:
                self._slots.discard(slot)
                slot.close()
            self._idle.put(None)
            raise
        self._idle.put(slot)
        return reply

    def _choose_tier(self) -> Report:
        """Start a slot in the best tier that holds what it promises; it stays as the first idle slot."""
        refused: dict[str, str] = {}
        for tier in self._tiers:
            if tier == "C" and not self._allow_weak:
                refused[tier] = "not allowed without allow_weak_sandbox: resource limits only, no isolation"
                continue
            self._report = Report(tier, backend=self.backend)
            try:
                missing = survey(self.run, self.limits)
            except SandboxError as error:
                refused[tier] = str(error)
                self._drop_slots()
                continue
            if not missing or (self._allow_weak and tier in ("C", "remote")):
                lacks = {item for slot in self._slots for item in slot.lacks}
                self._announce(tier, refused)
                return Report(tier, missing, refused, tuple(sorted(lacks)), self.backend)
            refused[tier] = "could " + ", ".join(missing)
            self._drop_slots()
        raise SandboxError("no tier of isolation works here: " + "; ".join(f"{k}: {v}" for k, v in refused.items()))

    def _announce(self, tier: str, refused: dict[str, str]) -> None:
        """Say which tier is in use; loudly, if it is not the best."""
        allowed = f"; programs may import {', '.join(self._imports)}" if self._imports else ""
        reasons = "".join(f"; tier {worse} was refused: {reason}" for worse, reason in refused.items())
        level = logging.WARNING if refused else logging.INFO
        logger.log(level, "programs run in tier %s (%s)%s%s", tier, self.backend, allowed, reasons)

    def _drop_slots(self) -> None:
        """End all slots; their places stay."""
        slots, self._slots = self._slots, set()
        for slot in slots:
            slot.close()
        for _ in range(self._idle.qsize()):
            self._idle.get()
        for _ in range(self.num_slots):
            self._idle.put(None)

    def _replacement(self) -> Slot:
        """A new slot. In a tier that has worked, a start that fails is tried again: it says nothing about the job."""
        for _ in range(_STARTS - 1 if self._ready_pid == os.getpid() else 0):
            try:
                return self._new_slot(self._report.tier)
            except SandboxError as error:
                logger.warning("a slot did not start: %s", error)
        return self._new_slot(self._report.tier)

    def _new_slot(self, tier: str) -> Slot:
        patience = PATIENCE * max(1.0, self.num_slots / _num_cpus())
        config = {"tier": tier, "backend": self.backend, "limits": self.limits.as_dict(), "patience": patience}
        packages = {"packages": self._packages, "imports": self._imports, "test_packages": self._test_packages}
        slot = Slot({**config, **packages})
        self._slots.add(slot)
        return slot


def _verdict(reply: dict[str, Any], forgeable: bool) -> Verdict:
    results = tuple(mark == "1" for mark in reply["results"])
    return Verdict(**{**reply, "outcome": Outcome(reply["outcome"]), "results": results}, forgeable=forgeable)


def probe() -> Report:
    """What this machine offers at best, weak tiers included."""
    try:
        with Sandbox(num_slots=1, allow_weak_sandbox=True) as sandbox:
            return sandbox.report
    except SandboxError as error:
        return Report("none", (), {"all": str(error)})


def _num_cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux: refused at start
        return 1
