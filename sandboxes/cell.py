"""The judge's end of one slot: starts the zygote, asks it for boxes, talks to a box within its limits.

Trusted code on the outside. Bytes from a box are counted and bounded before they are looked at.
`ZygoteLost` means the sandbox is in trouble; `BoxEnded` means the program is finished.
"""

from __future__ import annotations

import json
import math
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from typing import Any

from sandboxes.contract import Outcome

_HEADER = struct.Struct("<I")
_REPLY = struct.Struct("<idd?")
_REQUEST = struct.Struct("<III")
_SLOT_LIMITS = "memory_bytes num_processes num_threads num_open_files file_bytes disk_bytes num_inodes".split()
_ZYGOTE_PATIENCE_SECONDS = 20.0
_WATCH_SECONDS = 0.25
BOOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py")


class ZygoteLost(Exception):
    """The zygote failed to start, to set up a box, or to answer."""


class BoxEnded(Exception):
    """The program can answer no more; `outcome` is None where the wait status must tell."""

    def __init__(self, outcome: Outcome | None, detail: str = ""):
        super().__init__(detail)
        self.outcome, self.detail = outcome, detail


def python_command() -> list[str]:
    """The interpreter of the helpers: isolated, without site-packages, the base one rather than a virtual environment's."""
    return [getattr(sys, "_base_executable", None) or sys.executable, "-I", "-S", "-u", "-X", "utf8", BOOT]


class Cell:
    """A running zygote. Not thread-safe; one box at a time."""

    def __init__(self, tier: str, packages: dict[str, str], limits: dict[str, Any]):
        self.tier, self.limits, self.usable = tier, limits, True
        self.scratch = None if tier == "A" else tempfile.mkdtemp(prefix="sandbox-")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_ZYGOTE_PATIENCE_SECONDS)
        mapping = _id_mapping() if tier == "A" else None
        config = {
            "tier": tier,
            "packages": packages,
            "limits": limits,
            "scratch": self.scratch,
            "real_root": mapping is not None,
            "job_uid": self._job_uid(mapping),
            "num_own_tasks": 2 if mapping else 3,
        }
        command = [*python_command(), "zygote", str(theirs.fileno()), json.dumps(config)]
        self.process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        theirs.close()
        self.control = ours
        try:
            self._greet(mapping)
        except ZygoteLost:
            self.close()
            raise

    def _greet(self, mapping: tuple[int, int] | None) -> None:
        message = self._reply()
        if message == b"map":
            _map_ids(self.process.pid, mapping)
            self.control.send(b"mapped")
            message = self._reply()
        if message != b"ready":
            raise ZygoteLost(f"tier {self.tier}: {message.decode(errors='replace')}")

    def _reply(self) -> bytes:
        try:
            message = self.control.recv(4096)
        except OSError as error:
            raise ZygoteLost(f"no answer from the zygote: {error}") from error
        if not message:
            raise ZygoteLost(f"tier {self.tier}: the zygote is gone")
        return message

    def serves(self, limits: dict[str, Any]) -> bool:
        """Whether the limits that hold for the slot as a whole are those of `limits`."""
        return all(limits[name] == self.limits[name] for name in _SLOT_LIMITS)

    def _job_uid(self, mapping: tuple[int, int] | None) -> int | None:
        if mapping is not None:
            return 1000
        return None

    def open_box(self, limits: dict[str, Any]) -> Box:
        """Fork a box under `limits`."""
        return Box(self, limits)

    def end_box(self) -> tuple[int, float]:
        """Kill the box; (wait status, CPU seconds)."""
        try:
            self.control.send(b"K")
        except OSError as error:
            raise ZygoteLost(str(error)) from error
        message = self._reply()
        if len(message) != _REPLY.size:
            raise ZygoteLost(message.decode(errors="replace"))
        status, user, system, self.usable = _REPLY.unpack(message)
        return status, user + system

    def close(self) -> None:
        """End the zygote and with it everything in the slot."""
        self.control.close()
        self.process.kill()
        self.process.wait()
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)


class Box:
    """One program: frames go in, frames come out, until a limit or the end."""

    def __init__(self, cell: Cell, limits: dict[str, Any]):
        self.cell, self.limits = cell, limits
        self.started = time.monotonic()
        self.deadline = self.started + limits["wall_seconds"]
        self.link, remote = socket.socketpair()
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        self.output = {out_read: bytearray(), err_read: bytearray()}
        try:
            socket.send_fds(cell.control, [_box_request(limits)], [remote.fileno(), out_write, err_write])
        except OSError as error:
            raise ZygoteLost(str(error)) from error
        finally:
            remote.close()
            os.close(out_write)
            os.close(err_write)
        self.link.setblocking(False)
        self.poll = select.poll()
        for descriptor in (self.link.fileno(), *self.output):
            self.poll.register(descriptor, select.POLLIN)
        self.inbox, self.outbox = bytearray(), bytearray()
        self.pid, self.writing = 0, False
        self.ended: BoxEnded | None = None

    def send(self, *bodies: bytes) -> None:
        """Queue frames; they are written as the program reads."""
        for body in bodies:
            self.outbox += _HEADER.pack(len(body)) + body
        self._write()

    def receive(self) -> tuple[bytes, bytes]:
        """(tag, body) of the next frame. Raises BoxEnded, again and again once it has."""
        if self.ended is not None:
            raise self.ended
        try:
            while (frame := self._take_frame()) is None:
                self._pump()
        except BoxEnded as end:
            self.ended = end
            raise
        return frame[:1], frame[1:]

    def _take_frame(self) -> bytes | None:
        if len(self.inbox) < 4:
            return None
        (length,) = _HEADER.unpack_from(self.inbox)
        if not 1 <= length <= self.limits["result_bytes"] + 1024:
            raise BoxEnded(Outcome.PROTOCOL, "malformed frame")
        if len(self.inbox) < 4 + length:
            return None
        frame = bytes(self.inbox[4 : 4 + length])
        del self.inbox[: 4 + length]
        return frame

    def _pump(self) -> None:
        """Wait for the program once, and read or write what is possible."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise BoxEnded(Outcome.TIMEOUT_WALL, "wall clock")
        ready = self.poll.poll(min(left, _WATCH_SECONDS) * 1000 + 1)
        if not ready:
            self._watch()
        link = self.link.fileno()
        for descriptor, events in ready:
            if descriptor != link:
                self._read_output(descriptor)
            else:
                if events & select.POLLOUT:
                    self._write()
                if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    self._read_link()

    def _write(self) -> None:
        try:
            while self.outbox:
                sent = self.link.send(self.outbox)
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
            data = self.link.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            raise BoxEnded(None, "the program closed its channel")
        self.inbox += data

    def _read_output(self, descriptor: int) -> None:
        data = os.read(descriptor, 1 << 16)
        if not data:
            self.poll.unregister(descriptor)
            return
        self.output[descriptor] += data
        if sum(map(len, self.output.values())) > self.limits["output_bytes"]:
            raise BoxEnded(Outcome.OUTPUT_LIMIT)

    def _watch(self) -> None:
        """Called while nothing happens: end a program that is idle or has used up its CPU time."""
        self.pid = self.pid or _child_of(self.cell.process.pid, 1 if self.cell.tier != "A" else 2)
        cpu, waiting = _cpu_and_waiting_seconds(self.pid)
        if cpu > self.limits["cpu_seconds"]:
            raise BoxEnded(Outcome.TIMEOUT_CPU)
        if time.monotonic() - self.started - cpu - waiting > self.limits["idle_seconds"]:
            raise BoxEnded(Outcome.TIMEOUT_WALL, "idle")

    def close(self) -> tuple[int, float, float, str, str]:
        """Kill the program; (wait status, CPU seconds, wall seconds, stdout, stderr)."""
        try:
            status, cpu_seconds = self.cell.end_box()
            wall_seconds = time.monotonic() - self.started
            texts = [self._drain(descriptor) for descriptor in self.output]
        finally:
            self.link.close()
            for descriptor in self.output:
                os.close(descriptor)
        return status, cpu_seconds, wall_seconds, texts[0], texts[1]

    def _drain(self, descriptor: int) -> str:
        limit = self.limits["output_bytes"]
        os.set_blocking(descriptor, False)
        collected = self.output[descriptor]
        try:
            while len(collected) <= limit and (data := os.read(descriptor, 1 << 16)):
                collected += data
        except BlockingIOError:
            pass
        return bytes(collected[:limit]).decode("utf-8", "replace")


def _box_request(limits: dict[str, Any]) -> bytes:
    return _REQUEST.pack(math.ceil(limits["cpu_seconds"]), limits["result_bytes"], limits["result_depth"])


def _cpu_and_waiting_seconds(pid: int) -> tuple[float, float]:
    """CPU seconds of process `pid` and the seconds its threads stood in a run queue; zeros if it is gone."""
    if pid <= 0:
        return 0.0, 0.0
    cpu = waiting = 0.0
    try:
        cpu = time.clock_gettime((~pid << 3) | 2)
        for task in os.listdir(f"/proc/{pid}/task")[:64]:
            with open(f"/proc/{pid}/task/{task}/schedstat") as file:
                waiting += int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        pass
    return cpu, waiting


def _child_of(pid: int, generations: int) -> int:
    """A process that descends from `pid` by so many generations, or 0. Reads all of /proc: for the slow path only."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
    for _ in range(generations):
        pid = next((child for child, parent in parents.items() if parent == pid), 0)
    return pid


def _id_mapping() -> tuple[int, int] | None:
    """(first host id, count) of otherwise unused ids for the slot, or None where only the own id can be mapped."""
    if os.geteuid() != 0:
        return None
    try:
        with open("/proc/self/uid_map") as file:
            inside, _, count = (int(word) for word in file.readline().split())
    except (OSError, ValueError):
        return None
    for base in (2_000_000_000, 1_500_000, 60_000):
        if inside <= base and base + 2000 < inside + count:
            return base, 2000
    return None


def _map_ids(pid: int, mapping: tuple[int, int] | None) -> None:
    if mapping is not None:
        base, count = mapping
        lines = {"uid_map": f"0 {base} {count}", "gid_map": f"0 {base} {count}"}
    else:
        lines = {"setgroups": "deny", "uid_map": f"1000 {os.geteuid()} 1", "gid_map": f"1000 {os.getegid()} 1"}
    for name, text in lines.items():
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(text)


def signal_name(number: int) -> str:
    """SIGSEGV for 11, and so on."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
