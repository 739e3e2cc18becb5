"""The judge's end of one slot: starts the zygote behind its walls, asks it for boxes, ends it with all it holds.

Trusted code on the outside. `ZygoteLost` means that the sandbox, not the program, is in trouble.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
from typing import Any

from sandboxes import host, rootfs
from sandboxes.scratch import Scratch

_REPLY = struct.Struct("<idd?")
_PATIENCE_SECONDS = 20
_SLOT_LIMITS = (
    "memory_bytes",
    "num_processes",
    "num_threads",
    "num_open_files",
    "file_bytes",
    "disk_bytes",
    "num_inodes",
)
_BOOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py")
_generation = itertools.count()


class ZygoteLost(Exception):
    """The zygote failed to start, to set up a box, or to answer."""


def python_command() -> list[str]:
    """The helpers' interpreter: isolated, no site-packages, the base one rather than a virtual environment's."""
    return [getattr(sys, "_base_executable", None) or sys.executable, "-I", "-S", "-u", "-X", "utf8", _BOOT]


class Cell:
    """A running zygote. Not thread-safe; one program at a time."""

    def __init__(self, tier: str, packages: dict[str, str], limits: dict[str, Any]):
        if limits["num_processes"] and tier != "A":
            raise ZygoteLost("programs may have child processes in tier A only")
        self.tier, self.limits, self.usable = tier, limits, True
        mapping = host.id_mapping() if tier == "A" else None
        job_uid = (1000 if mapping else None) if tier == "A" else host.spare_uid(rootfs.readable_dirs())
        self.scratch = None if tier == "A" else host.make_scratch(job_uid)
        self.scratch_keeper = None if self.scratch is None else Scratch(self.scratch)
        self.cgroup = host.Cgroup.create(f"{host.slot_name(os.getpid())}{next(_generation)}", limits)
        self.num_oom_kills = 0
        self.lacks = [] if self.cgroup else ["cgroup"]
        config = {
            "tier": tier,
            "packages": packages,
            "limits": limits,
            "scratch": self.scratch,
            "real_root": mapping is not None,
            "job_uid": job_uid,
            "num_own_tasks": 2 if mapping else 3,
        }
        self.control, self.process = _spawn(config)
        try:
            self._greet(mapping)
        except (ZygoteLost, OSError) as error:
            self.close()
            raise ZygoteLost(str(error)) from error

    def fork(self, request: bytes, descriptors: list[int]) -> None:
        """Ask for a box that holds `descriptors`: its channel, stdout and stderr."""
        try:
            socket.send_fds(self.control, [request], descriptors)
        except OSError as error:
            raise ZygoteLost(str(error)) from error

    def end_box(self) -> tuple[int, float]:
        """Kill the box; (wait status, CPU seconds). Afterwards `usable` says whether the slot is clean."""
        try:
            self.control.send(b"K")
        except OSError as error:
            raise ZygoteLost(str(error)) from error
        message = self._reply()
        if len(message) != _REPLY.size:
            raise ZygoteLost(message.decode(errors="replace"))
        status, user, system, self.usable = _REPLY.unpack(message)
        if self.scratch_keeper is not None:
            self.usable = self.scratch_keeper.clean()
        return status, user + system

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel has killed something in the slot for lack of memory since the last call."""
        if self.cgroup is None:
            return False
        before, self.num_oom_kills = self.num_oom_kills, self.cgroup.num_oom_kills()
        return self.num_oom_kills > before

    def serves(self, limits: dict[str, Any]) -> bool:
        """Whether the limits that hold for the slot as a whole are those of `limits`."""
        return all(limits[name] == self.limits[name] for name in _SLOT_LIMITS)

    def close(self) -> None:
        """End the zygote and with it everything in the slot."""
        self.control.close()
        self.process.kill()
        self.process.wait()
        if self.cgroup is not None:
            self.cgroup.remove()
        if self.scratch_keeper is not None and self.scratch is not None:
            self.scratch_keeper.clean()
            with contextlib.suppress(OSError):
                os.rmdir(self.scratch)

    def _greet(self, mapping: tuple[int, int] | None) -> None:
        if self.cgroup is not None:
            self.cgroup.add(self.process.pid)
        self.control.send(b"go")
        message = self._reply()
        if message == b"map":
            host.map_ids(self.process.pid, mapping)
            self.control.send(b"mapped")
            message = self._reply()
        if message == b"ready without landlock":
            self.lacks.append("Landlock")
        elif message != b"ready":
            raise ZygoteLost(f"tier {self.tier}: {message.decode(errors='replace')}")

    def _reply(self) -> bytes:
        try:
            message = self.control.recv(4096)
        except OSError as error:
            raise ZygoteLost(f"no answer from the zygote: {error}") from error
        if not message:
            raise ZygoteLost(f"tier {self.tier}: the zygote is gone")
        return message


def _spawn(config: dict[str, Any]) -> tuple[socket.socket, subprocess.Popen]:
    """Start the zygote's process; (control socket, process)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    patience = struct.pack("ll", _PATIENCE_SECONDS, 0)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
    with theirs:
        process = subprocess.Popen(
            [*python_command(), "zygote", str(theirs.fileno()), json.dumps(config)],
            pass_fds=[theirs.fileno()],
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    return ours, process
