"""Where the time goes: seconds by phase, and the peak memory of the process."""

from __future__ import annotations

import contextlib
import resource
import time
from collections import defaultdict
from collections.abc import Iterator

import psutil


class Phases:
    """`with phases("generate"): ...` adds up wall seconds by name; nested phases are counted in both."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def take(self) -> dict[str, float]:
        """The seconds since the last call, and starts again from zero."""
        taken = dict(self.seconds)
        self.seconds.clear()
        return taken


def peak_memory_mib() -> float:
    """The largest resident size of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cpu_seconds() -> float:
    """User and system seconds of this process and its children so far, those already ended included."""
    me = psutil.Process()
    times = [me.cpu_times()]
    for child in me.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times.append(child.cpu_times())
    return sum(t.user + t.system for t in times) + times[0].children_user + times[0].children_system
