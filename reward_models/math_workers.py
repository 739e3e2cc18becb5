"""A few processes that compare formulas with math-verify and can be killed at any moment.

It may assume POSIX. Workers are started by exec with pipes, never forked from a process that may hold CUDA or torch.
It will not wait: an answer that is not judged in time costs its worker its life and counts as not equal.
"""

import contextlib
import functools
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue

logger = logging.getLogger(__name__)

WORKER_FILE = Path(__file__).with_name("math_verify_worker.py")
# The worker counts CPU time itself; these are for a worker that gets hardly any.
START_SECONDS = 180.0
WALL_SECONDS = 180.0
JOBS_PER_WORKER = 1_000  # then a fresh one: sympy's caches grow
Problem = list[tuple[str, str]]


class WorkerFailure(RuntimeError):
    """The worker could not be started or got no CPU: the machine's fault, not the answer's."""


class Worker:
    """One process, one question at a time; not to be shared between threads."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._buffer = b""
        self._num_jobs = 0

    def ask(self, problem: Problem, seconds: float) -> bool:
        """True if every pair is equal; False when that needs more CPU time than `seconds`, or takes the worker down.

        WorkerFailure if the worker cannot be started or gets no CPU.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"pairs": problem, "seconds": seconds}).encode() + b"\n")
            process.stdin.flush()
            reply = self._read_line(WALL_SECONDS)
        except (BrokenPipeError, EOFError):  # killed by its CPU or memory limit: what hostile answers do
            self.stop()
            return False
        except TimeoutError as error:  # it had no CPU to spend: not the answer's fault
            self.stop()
            raise WorkerFailure(f"a formula got less than {seconds} s of CPU in {WALL_SECONDS} s") from error
        self._num_jobs += 1
        if self._num_jobs >= JOBS_PER_WORKER:
            self.stop()
        return json.loads(reply)["equal"]

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # unsent bytes for a worker that is gone
                    pipe.close()
        self._process = None

    def _start(self) -> subprocess.Popen:
        self._buffer, self._num_jobs = b"", 0
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(WORKER_FILE), json.dumps([p for p in sys.path if p])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the terminal is for the run, which finishes its step first
                env={"PATH": os.environ.get("PATH", ""), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
            self._read_line(START_SECONDS)
        except (OSError, EOFError, TimeoutError) as error:
            self.stop()
            raise WorkerFailure(f"cannot start the process that compares formulas: {error}") from error
        return self._process

    def _read_line(self, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError("no answer in time")
            chunk = os.read(descriptor, 65536)
            if not chunk:
                raise EOFError("the process ended")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


class Workers:
    """`num_workers` processes, started when they are first needed; may be used from several threads."""

    def __init__(self, num_workers: int) -> None:
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        self._all = [Worker() for _ in range(num_workers)]
        for worker in self._all:
            self._idle.put(worker)

    def verify_all(self, problems: list[Problem], seconds: float) -> list[bool | None]:
        """For each problem whether all its pairs are equal; None where no worker could be run. Equal problems once."""
        distinct = {json.dumps(problem): problem for problem in problems}
        waiting, verdicts = list(distinct.items()), {}

        def serve() -> None:
            while True:
                try:
                    key, problem = waiting.pop()
                except IndexError:
                    return
                verdicts[key] = self._verify(problem, seconds)

        threads = [threading.Thread(target=serve, daemon=True) for _ in range(min(len(self._all), len(waiting)) - 1)]
        for thread in threads:
            thread.start()
        serve()
        for thread in threads:
            thread.join()
        return [verdicts[json.dumps(problem)] for problem in problems]

    def close(self) -> None:
        for worker in self._all:
            worker.stop()

    def _verify(self, problem: Problem, seconds: float) -> bool | None:
        worker = self._idle.get()
        try:
            return worker.ask(problem, seconds)
        except WorkerFailure as failure:
            logger.warning("an answer is unscored: %s", failure)
            return None
        finally:
            self._idle.put(worker)


@functools.cache
def shared_workers() -> Workers:
    """The workers of this process; they end with it (their input closes)."""
    return Workers(max(1, min(4, (os.cpu_count() or 1) // 2)))
