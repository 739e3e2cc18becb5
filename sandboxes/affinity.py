"""Keeps the processes of a slot on one CPU while its jobs are short, and lets them go when one is not.

Judge, zygote and worker take turns. Left to themselves they wake each other across CPUs and, with a slot for every CPU,
get into each other's way: two slots did 1.7 times the work of one instead of 2.0. Where the system forbids it or the
library lacks a call nothing is done; no result depends on it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time

_STAY_SECONDS = 0.05  # then the system may choose another CPU
_current_cpu = getattr(ctypes.CDLL(None), "sched_getcpu", None)


class Affinity:
    """That of the calling process and of `zygote`, whose forks inherit it; `zygote` is 0 if it cannot be told."""

    def __init__(self, zygote: int):
        self.zygote, self.cpu, self.until = zygote, -1, 0.0
        self.everywhere = os.sched_getaffinity(0)
        self.works = bool(zygote) and len(self.everywhere) > 1

    def gather(self) -> None:
        """Before a job: both stay where the caller runs now, which is where the system saw room for it."""
        if not self.works or self.until or _current_cpu is None:
            return
        cpu, self.until = _current_cpu(), time.monotonic() + _STAY_SECONDS
        try:
            os.sched_setaffinity(0, (cpu,))
            if cpu != self.cpu:
                os.sched_setaffinity(self.zygote, (cpu,))
                self.cpu = cpu
        except OSError:  # not permitted, or the CPUs of this process have changed
            self.works = False
            self.release()

    def release_in_time(self) -> None:
        """After a job: the caller may move before the next one, if it has stayed long enough."""
        if self.until and time.monotonic() > self.until:
            self.release()

    def release(self, worker: int = 0) -> None:
        """The caller, and all threads of a worker, may run everywhere at once."""
        tasks = [0]
        with contextlib.suppress(OSError):
            tasks += map(int, os.listdir(f"/proc/{worker}/task")) if worker and self.works else ()
        for task in tasks:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(task, self.everywhere)
        self.until = 0.0
