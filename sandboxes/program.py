"""The judge's end of one running program: frames go in, frames come out, until a limit or the end.

Bytes from the program are counted and bounded before they are looked at. `ProgramEnded`: it can answer no more.
"""

from __future__ import annotations

import _socket
import math
import os
import select
import struct
import time
from dataclasses import dataclass
from typing import Any, Protocol

from sandboxes import host
from sandboxes.affinity import Affinity
from sandboxes.contract import Outcome
from sandboxes.spawn import ZygoteLost

_HEADER = struct.Struct("<I")
_REQUEST = struct.Struct("<III")
_CHUNK = 1 << 16
_WATCH_SECONDS = 0.25
_CLOSE_WATCH_SECONDS = 0.02  # where the kernel does not count files and threads for us
_REWRITES = 16  # how often a program may write its disk full where deleted files that it still holds are not counted
PATIENCE = 3  # on a machine loaded by others the wall limit stretches up to this factor


class ProgramEnded(Exception):
    """The program can answer no more; `outcome` is None where the wait status must tell."""

    def __init__(self, outcome: Outcome | None, detail: str = ""):
        super().__init__(detail)
        self.outcome, self.detail = outcome, detail


@dataclass(frozen=True)
class WorkerExit:
    """The kernel's facts about a worker that is gone."""

    status: int  # as wait(2) reports it
    cpu_seconds: float
    ended_itself: bool  # rather than being killed by its zygote


@dataclass(frozen=True)
class Remains:
    """What is left of a program: the kernel's facts and what it had printed."""

    end: WorkerExit
    wall_seconds: float
    stdout: str
    stderr: str


class Executor(Protocol):
    """Who runs the worker: see `executor.LocalExecutor`."""

    tier: str
    patience: float
    scratch: str | None
    affinity: Affinity

    def fork(self, request: bytes, descriptors: list[int]) -> None: ...

    def find_worker(self) -> int: ...

    def end_worker(self, is_ending: bool) -> WorkerExit: ...


class Program:
    """One program in one worker of `executor`, from fork to kill."""

    def __init__(self, executor: Executor, limits: dict[str, Any]):
        self.executor, self.limits = executor, limits
        self.started = time.monotonic()
        self.deadline = self.started + limits["wall_seconds"]
        self.watch_seconds = _WATCH_SECONDS if executor.tier == "A" else _CLOSE_WATCH_SECONDS
        self.next_watch = self.started + self.watch_seconds
        executor.affinity.gather()
        self.link, remote = _socket.socketpair()
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        self.output = {out_read: bytearray(), err_read: bytearray()}
        # A program may have sent its end to itself, which keeps it open, or take away what we were about to read.
        os.set_blocking(out_read, False)
        os.set_blocking(err_read, False)
        try:
            executor.fork(_request(limits), [out_write, err_write, remote.fileno()])
        except ZygoteLost:
            self._close_descriptors()
            raise
        finally:
            remote.close()
            os.close(out_write)
            os.close(err_write)
        self.poll = select.poll()
        for descriptor in (self.link.fileno(), *self.output):
            self.poll.register(descriptor, select.POLLIN)
        self.inbox, self.outbox = bytearray(), bytearray()
        self.pid, self.writing, self.is_free = 0, False, False
        self.idle_seconds = 0.0
        self.last_seen: tuple[float, float] | None = None  # when, and its CPU and waiting seconds then
        self.ended: ProgramEnded | None = None

    def send(self, *bodies: bytes) -> None:
        """Queue frames; they are written as the program reads."""
        for body in bodies:
            self.outbox += _HEADER.pack(len(body)) + body
        self._write()

    def receive(self) -> tuple[bytes, bytes]:
        """(tag, body) of the next frame. Raises ProgramEnded, again and again once it has."""
        if self.ended is not None:
            raise self.ended
        try:
            while (frame := self._take_frame()) is None:
                self._pump()
        except ProgramEnded as end:
            self.ended = end
            raise
        return frame[:1], frame[1:]

    def close(self) -> Remains:
        """End the program. What is left of it."""
        try:
            end = self.executor.end_worker(is_ending=self.ended is not None and self.ended.outcome is None)
            wall_seconds = time.monotonic() - self.started
            texts = [self._drain(descriptor) for descriptor in self.output]
        finally:
            self._close_descriptors()
            self.executor.affinity.release_in_time()
        return Remains(end, wall_seconds, *texts)

    def _close_descriptors(self) -> None:
        self.link.close()
        for descriptor in self.output:
            os.close(descriptor)

    def _take_frame(self) -> bytes | None:
        if len(self.inbox) < 4:
            return None
        (length,) = _HEADER.unpack_from(self.inbox)
        if not 1 <= length <= self.limits["result_bytes"] + 1024:
            raise ProgramEnded(Outcome.PROTOCOL, "malformed frame")
        if len(self.inbox) < 4 + length:
            return None
        frame = bytes(self.inbox[4 : 4 + length])
        del self.inbox[: 4 + length]
        return frame

    def _pump(self) -> None:
        """Wait for the program once, and read or write what is possible; then see to the limits.

        In this order: on a loaded machine the judge may come late, and the answer be there already.
        """
        left = min(self.deadline, self.next_watch) - time.monotonic()
        ready = self.poll.poll(left * 1000 + 1 if left > 0 else 0)
        link = self.link.fileno()
        for descriptor, events in ready:
            if descriptor != link:
                self._read_output(descriptor)
            else:
                if events & select.POLLOUT:
                    self._write()
                if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    self._read_link()
        now = time.monotonic()
        if now >= self.next_watch:
            self._watch(now, quiet=not ready)
        if now >= self.deadline and not self._holds_a_frame():
            self._check_deadline(now)

    def _holds_a_frame(self) -> bool:
        return len(self.inbox) >= 4 and len(self.inbox) >= 4 + _HEADER.unpack_from(self.inbox)[0]

    def _check_deadline(self, now: float) -> None:
        """Time spent waiting for a CPU is not the program's: it moves the deadline, up to `patience` times the limit.

        Patience grows with the number of slots for each CPU, so that programs of one's own that wait for each other end
        at their limits. One that would have to wait longer had no fair trial: others took the CPUs. (None can lower its
        own priority to get there.)
        """
        if not self._find_pid():
            raise ZygoteLost("no worker appeared")
        _, waiting = host.cpu_and_waiting_seconds(self.pid)
        wall_seconds = self.limits["wall_seconds"]
        patience = self.executor.patience
        allowed = min(wall_seconds + waiting, patience * wall_seconds)
        if now >= self.started + allowed - _WATCH_SECONDS:
            if waiting > (patience - 1) * wall_seconds - _WATCH_SECONDS:
                raise ZygoteLost(f"the program waited for a CPU for {waiting:.1f} of {now - self.started:.1f} s")
            raise ProgramEnded(Outcome.TIMEOUT_WALL, "wall clock")
        self.deadline = self.started + allowed

    def _find_pid(self) -> int:
        self.pid = self.pid or self.executor.find_worker()
        return self.pid

    def _write(self) -> None:
        try:
            while self.outbox:
                sent = self.link.send(self.outbox, _socket.MSG_DONTWAIT)
                del self.outbox[:sent]
        except BlockingIOError:
            self.poll.modify(self.link.fileno(), select.POLLIN | select.POLLOUT)
            self.writing = True
            return
        except OSError:
            self.outbox.clear()  # the reading side will see the end
        if self.writing:
            self.poll.modify(self.link.fileno(), select.POLLIN)
            self.writing = False

    def _read_link(self) -> None:
        try:
            data = self.link.recv(_CHUNK, _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            raise ProgramEnded(None)
        self.inbox += data

    def _read_output(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self.poll.unregister(descriptor)
            return
        self.output[descriptor] += data
        if sum(map(len, self.output.values())) > self.limits["output_bytes"]:
            raise ProgramEnded(Outcome.OUTPUT_LIMIT, "stdout and stderr")

    def _watch(self, now: float, quiet: bool) -> None:
        """End a program that is idle or over its CPU time, or over files and threads that the kernel does not count."""
        limits, pid = self.limits, self._find_pid()
        if not self.is_free:  # no short job, then
            self.is_free = True
            self.executor.affinity.release(pid)
        cpu, waiting = host.cpu_and_waiting_seconds(pid)
        if cpu > limits["cpu_seconds"]:
            raise ProgramEnded(Outcome.TIMEOUT_CPU, "CPU time")
        if quiet and self.last_seen is not None and not host.is_runnable(pid):
            seen_at, active_then = self.last_seen
            self.idle_seconds += max(0.0, now - seen_at - (cpu + waiting - active_then))
        self.last_seen = (now, cpu + waiting) if pid else None
        if self.idle_seconds > limits["idle_seconds"]:
            raise ProgramEnded(Outcome.TIMEOUT_WALL, "idle")
        if self.executor.scratch is not None:
            entries, num_bytes = host.disk_usage(self.executor.scratch, limits["num_inodes"])
            num_written = host.bytes_written(self.pid)
            if entries > limits["num_inodes"] or max(num_bytes, num_written / _REWRITES) > limits["disk_bytes"]:
                raise ProgramEnded(Outcome.OUTPUT_LIMIT, "files")
            if host.num_threads(self.pid) > limits["num_threads"] + 1:
                raise ProgramEnded(Outcome.MEMORY, "threads")
        self.next_watch = time.monotonic() + self.watch_seconds

    def _drain(self, descriptor: int) -> str:
        """What the dead program had printed."""
        limit = self.limits["output_bytes"]
        collected = self.output[descriptor]
        try:
            while len(collected) <= limit and (data := os.read(descriptor, _CHUNK)):
                collected += data
        except BlockingIOError:
            pass
        return bytes(collected[:limit]).decode("utf-8", "replace")


def _request(limits: dict[str, Any]) -> bytes:
    return _REQUEST.pack(math.ceil(limits["cpu_seconds"]), limits["result_bytes"], limits["result_depth"])
