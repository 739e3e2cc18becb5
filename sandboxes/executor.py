"""The judge's end of one slot: starts the zygote in confinement, asks it for workers, ends it with all it holds.

Trusted code on the outside. `ZygoteLost` means that the sandbox, not the program, is in trouble.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
from typing import Any

from sandboxes import backends, host, rootfs, spawn
from sandboxes.affinity import Affinity
from sandboxes.program import Program, WorkerExit
from sandboxes.scratch import Scratch
from sandboxes.spawn import ZygoteLost

_REPLY = struct.Struct("<idd??")
_SLOT_LIMITS = (
    "memory_bytes",
    "num_processes",
    "num_threads",
    "num_open_files",
    "file_bytes",
    "disk_bytes",
    "num_inodes",
)
_TEST_SECONDS = 2.0  # for the test's own work, on top of the program's wall limit
_generation = itertools.count()


class LocalExecutor:
    """A running zygote. Not thread-safe; one program at a time."""

    def __init__(self, shared: dict[str, Any], limits: dict[str, Any]):
        """`shared`: tier, backend, packages and patience of all slots."""
        tier, backend, packages = shared["tier"], shared["backend"], shared["packages"]
        if limits["num_processes"] and tier != "A":
            raise ZygoteLost("programs may have child processes in tier A only")
        self.tier, self.limits, self.usable, self.num_oom_kills = tier, limits, True, 0
        self.patience: float = shared["patience"]
        local_a, engine = tier == "A" and backend == backends.LOCAL, backends.container(backend)
        self.mapping = host.id_mapping() if local_a else None
        job_uid = host.spare_uid(rootfs.readable_dirs()) if tier != "A" else 1000 if self.mapping else None
        self.scratch = None if tier == "A" else host.make_scratch(job_uid)
        self.scratch_keeper = None if self.scratch is None else Scratch(self.scratch)
        if self.scratch_keeper is not None:
            self.scratch_keeper.lock()
        name = f"{host.slot_name(os.getpid())}{next(_generation)}"
        self.cgroup = None if engine else host.Cgroup.create(name, limits)
        self.lacks = [] if self.cgroup or engine else ["cgroup"]
        if engine and engine[0] == "podman":
            self.lacks.append("limit on the number of files")
        self.zygote: spawn.Running | None = None
        shares_user = bool(engine) or (tier != "A" and job_uid is None)
        self.affinity = Affinity(zygote=0)
        config = {
            "tier": tier,
            "packages": packages,
            "imports": shared["imports"],
            "limits": limits,
            "real_root": self.mapping is not None,
            "job_uid": job_uid,
            "num_own_tasks": None if shares_user else 2 if self.mapping else 3,
            **_confinement(tier, backend, self.scratch),
        }
        try:
            if engine:
                self.zygote = spawn.in_container(config, *engine, name)
            else:
                prefix = (
                    spawn.bubblewrap_prefix(packages, limits["num_processes"] > 0)
                    if backend == backends.BUBBLEWRAP
                    else []
                )
                self.zygote = spawn.plainly(config, prefix, self.cgroup.add if self.cgroup else lambda pid: None)
            self.control = self.zygote.control
            self._greet()
            self.affinity = Affinity(host.descendant(self.zygote.pid, self.zygote.num_generations - 1))
        except (ZygoteLost, OSError) as error:
            self.close()
            raise ZygoteLost(str(error)) from error

    def open_program(self, limits: dict[str, Any]) -> Program:
        """A worker for one program."""
        return Program(self, limits)

    def test_seconds(self, limits: dict[str, Any]) -> float:
        """How long a test may take in all, its own work included."""
        return self.patience * limits["wall_seconds"] + _TEST_SECONDS

    def find_worker(self) -> int:
        """The process id of the worker, or 0. Reads all of /proc."""
        assert self.zygote is not None
        return host.descendant(self.zygote.pid, self.zygote.num_generations)

    def fork(self, request: bytes, descriptors: list[int]) -> None:
        """Ask for a worker that holds `descriptors`: its stdout, stderr and channel."""
        try:
            self.control.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("3i", *descriptors))])
        except OSError as error:
            raise ZygoteLost(str(error)) from error

    def end_worker(self, is_ending: bool) -> WorkerExit:
        """Kill the worker, or, if it `is_ending`, give it a moment to do so itself.

        Afterwards `usable` says whether the slot is clean.
        """
        try:
            self.control.send(b"E" if is_ending else b"K")
        except OSError as error:
            raise ZygoteLost(str(error)) from error
        message = self._reply()
        if len(message) != _REPLY.size:
            raise ZygoteLost(message.decode(errors="replace"))
        status, user, system, self.usable, ended_itself = _REPLY.unpack(message)
        if self.scratch_keeper is not None:
            self.usable = self.scratch_keeper.clean()
        return WorkerExit(status, user + system, ended_itself)

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
        self.affinity.release()  # the next zygote will inherit ours
        if self.zygote is not None:
            self.zygote.control.close()
            self.zygote.end()
            host.reap_orphans()
        if self.cgroup is not None:
            self.cgroup.remove()
        if self.scratch_keeper is not None:
            with contextlib.suppress(OSError):
                self.scratch_keeper.remove()

    def _greet(self) -> None:
        self.control.send(b"go")
        message = self._reply()
        if message == b"map" and self.zygote is not None:
            host.map_ids(self.zygote.pid, self.mapping)
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


def _confinement(tier: str, backend: str, scratch: str | None) -> dict[str, str | None]:
    """Who builds the namespaces, whether the file system is made for programs, and where their scratch directory is."""
    if backends.container(backend):
        return {"builder": "container", "root": "shared", "scratch": "/tmp"}
    if tier != "A":
        return {"builder": "none", "root": "shared", "scratch": scratch}
    builder = "bubblewrap" if backend == backends.BUBBLEWRAP else "zygote"
    return {"builder": builder, "root": "private", "scratch": rootfs.SCRATCH}
