"""The judge's end of one slot: starts the zygote, asks it for boxes, talks to a box within its limits.

Trusted code on the outside. Bytes from a box are counted and bounded before they are looked at.
`ZygoteLost` means the sandbox is in trouble; `BoxEnded` means the program is finished.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import Any

from sandboxes import box
from sandboxes.contract import Outcome

_HEADER = struct.Struct("<I")
_CREDENTIALS = struct.Struct("=iII")
_REPLY = struct.Struct("<iddi")
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
    return [getattr(sys, "_base_executable", None) or sys.executable, "-I", "-S", "-X", "utf8", BOOT]


class Cell:
    """A running zygote. Not thread-safe; one box at a time."""

    def __init__(self, tier: str, packages: dict[str, str]):
        self.tier = tier
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_ZYGOTE_PATIENCE_SECONDS)
        mapping = _id_mapping() if tier == "A" else None
        config = {"tier": tier, "packages": packages, "map_ids": mapping, "switch_user": mapping is not None}
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

    def open_box(self, limits: dict[str, Any]) -> Box:
        """Fork a box under `limits`."""
        return Box(self, limits)

    def end_box(self) -> tuple[int, float, int]:
        """Kill the box; (wait status, CPU seconds, maximum resident KiB)."""
        try:
            self.control.send(b"K")
        except OSError as error:
            raise ZygoteLost(str(error)) from error
        message = self._reply()
        status, user, system, resident = _REPLY.unpack(message)
        return status, user + system, resident

    def close(self) -> None:
        """End the zygote and with it everything in the slot."""
        self.control.close()
        self.process.kill()
        self.process.wait()


class Box:
    """One program: frames go in, frames come out, until a limit or the end."""

    def __init__(self, cell: Cell, limits: dict[str, Any]):
        self.cell, self.limits = cell, limits
        self.started = time.monotonic()
        self.deadline = self.started + limits["wall_seconds"]
        self.link, remote = socket.socketpair()
        self.link.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        self.output = {out_read: bytearray(), err_read: bytearray()}
        try:
            socket.send_fds(cell.control, [json.dumps(limits).encode()], [remote.fileno(), out_write, err_write])
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
        self.pid = 0
        self.ended: BoxEnded | None = None

    def send(self, body: bytes) -> None:
        """Queue a frame; it is written as the program reads."""
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
            return
        except OSError:
            self.outbox.clear()  # the reading side will see the end
        if self.pid:
            self.poll.modify(self.link.fileno(), select.POLLIN)

    def _read_link(self) -> None:
        try:
            if self.pid:
                data = self.link.recv(1 << 18)
            else:
                data = self._first_bytes()
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            raise BoxEnded(None, "the program closed its channel")
        self.inbox += data

    def _first_bytes(self) -> bytes:
        """Read the box's word that it is locked down; the kernel adds the sender's pid."""
        data, ancillary, _, _ = self.link.recvmsg(1 << 18, 64)
        if data[:1] != box.READY:
            raise ZygoteLost(f"box setup failed: {data[:200].decode(errors='replace')}")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                self.pid = _CREDENTIALS.unpack(payload[:12])[0]
        if self.pid <= 0:
            raise ZygoteLost("the kernel named no sender")
        rest = data[1:]
        if not rest:
            raise BlockingIOError
        return rest

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
        cpu, waiting = _cpu_and_waiting_seconds(self.pid)
        if cpu > self.limits["cpu_seconds"]:
            raise BoxEnded(Outcome.TIMEOUT_CPU)
        if time.monotonic() - self.started - cpu - waiting > self.limits["idle_seconds"]:
            raise BoxEnded(Outcome.TIMEOUT_WALL, "idle")

    def close(self) -> tuple[int, float, float, str, str]:
        """Kill the program; (wait status, CPU seconds, wall seconds, stdout, stderr)."""
        try:
            status, cpu_seconds, _ = self.cell.end_box()
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
