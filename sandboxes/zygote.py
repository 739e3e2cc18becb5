"""The zygote of one slot: a slim process that walls itself in completely and then forks one box per job.

It obeys the judge over a socket (file descriptors in, exit status and CPU time out) and reads nothing that a box wrote.
All isolation but the last step is done once, here, and inherited. In tier A it is process 1 of its own pid namespace.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import socket
import struct
import sys

from sandboxes import box, host, kernel, rootfs, scratch, seccomp

# What honest solutions import: paid for once per slot instead of once per job.
_COMMON = (
    "bisect",
    "collections",
    "copy",
    "functools",
    "heapq",
    "itertools",
    "math",
    "operator",
    "re",
    "string",
    "typing",
)

REPLY = struct.Struct("<idd?")  # wait status, user seconds, system seconds, whether the slot is clean
REQUEST = struct.Struct("<III")  # CPU limit in whole seconds, answer bytes, answer depth
SETUP_FAILED = 97
CONTROL, FIRST_PRIVATE = 3, 4
NAMESPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWPID
)
_fork = ctypes.PyDLL(None).fork  # os.fork without Python's at-fork work, which a single-threaded process does not need


def main(descriptor: int, config_text: str) -> None:
    """Wall this process in as `config` says and serve jobs until the judge goes away."""
    config = json.loads(config_text)
    if descriptor != CONTROL:
        os.dup2(descriptor, CONTROL)
        os.close(descriptor)
    control = socket.socket(fileno=CONTROL)
    try:
        _start(control, config).serve()
    except (BrokenPipeError, ConnectionResetError):  # the judge is gone
        os._exit(0)


def _start(control: socket.socket, config: dict) -> Zygote:
    """The zygote behind its walls; on failure tells the judge why and exits."""
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if control.recv(16) != b"go":  # now in its cgroup
            os._exit(0)
        if config["tier"] == "A":
            _enter_namespaces(control, config)
        else:
            os.chdir(config["scratch"])
        zygote = Zygote(control, config)
    except OSError as error:
        control.send(b"failed " + str(error).encode())
        os._exit(1)
    control.send(b"ready without landlock" if zygote.without_landlock else b"ready")
    return zygote


def _enter_namespaces(control: socket.socket, config: dict) -> None:
    """New user, mount, net, ipc, uts and pid namespaces and a private root. Returns in their process 1."""
    if config["real_root"]:  # real root may read what the mapped user may not (a Python below /root)
        kernel.unshare(kernel.CLONE_NEWNS)
        rootfs.enter(config["packages"])
    kernel.unshare(NAMESPACES)
    control.send(b"map")
    if control.recv(16) != b"mapped":
        raise OSError("the judge could not map user ids")
    if config["real_root"]:
        _switch_user(0)
    else:
        rootfs.enter(config["packages"])
    rootfs.mount_scratch(config["limits"]["disk_bytes"], config["limits"]["num_inodes"])
    child = os.fork()
    if child:
        _wait_for(child)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.chdir(rootfs.SCRATCH)


def _wait_for(child: int) -> None:
    """Stay as the parent of process 1, without rights, and end with it."""
    os.closerange(0, 64)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)  # again: a change of user clears it
    os.waitpid(child, 0)
    os._exit(0)


def _switch_user(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _warm_up() -> None:
    """Go through a box's work with a trusted sample, so that boxes inherit its memory pages instead of faulting."""
    for name in _COMMON:
        __import__(name)
    for name in _COMMON:
        __import__(name)
    calls: list[tuple[tuple, dict]] = [(([1, 2, 3, 4],), {"n": 2}), (("abc",), {}), ((5,), {})]
    for _ in range(20):  # enough for the interpreter to specialise its bytecode, which writes to it
        ours, theirs = socket.socketpair()
        for body in (box.load_frame(_SAMPLE, "f"), *(box.call_frame(*call) for call in calls)):
            ours.send(struct.pack("<I", len(body)) + body)
        ours.shutdown(socket.SHUT_WR)
        box.serve(theirs.fileno(), 1 << 20, 60)
        ours.close()
        theirs.close()
    del sys.modules[box.MODULE_NAME]


def _import_packages(packages: dict[str, str]) -> None:
    """Make allowed third-party packages importable, and import them once for all boxes."""
    if not packages:
        return
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # threads do not survive a fork
    in_root = os.path.isdir(rootfs.PACKAGES)
    sys.path += [rootfs.PACKAGES] if in_root else sorted({os.path.dirname(path) for path in packages.values()})
    for name in packages:
        if name.isidentifier():
            __import__(name)


_SAMPLE = '''
from typing import List
import math
def f(xs: List[int], n: int = 1) -> list:
    """A sample of what programs do."""
    try:
        return sorted([x * n for x in xs if x % 2 == 0])
    except (ValueError, KeyError) as error:
        raise RuntimeError(f"{error!r}") from error
class A:
    def g(self, **k):
        while True:
            break
        return {1: (2, 3.5), "a": {4}}
assert A().g() and f([2])
'''


class Zygote:
    """Forks one box per request; keeps the scratch directory empty between jobs."""

    def __init__(self, control: socket.socket, config: dict):
        self.control, self.tier, limits = control, config["tier"], config["limits"]
        os.umask(0o077)
        _import_packages(config["packages"])
        _warm_up()
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        if self.tier == "C":
            kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        if os.geteuid() == 0:
            kernel.drop_bounding_set()
        _set_resource_limits(limits, config["num_own_tasks"])
        self.without_landlock = self.tier == "A" and kernel.landlock_abi() == 0  # A has its own root as well
        ruleset = None if self.tier == "C" or self.without_landlock else _landlock(config)
        if config["job_uid"] is not None:
            _switch_user(config["job_uid"])
        kernel.drop_capabilities()
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)  # again: a change of user clears it
        self.box_filter = b""
        if ruleset is not None:
            kernel.landlock_restrict(ruleset)
            os.close(ruleset)
        if self.tier != "C":
            kernel.install_seccomp(seccomp.zygote_filter(kernel.MACHINE, own_files=self.tier == "A"))
            self.box_filter = seccomp.box_filter(kernel.MACHINE, limits["num_processes"])
        self.scratch = scratch.Scratch(".") if self.tier == "A" else None  # elsewhere the judge cleans up
        kernel.prepare_seccomp(self.box_filter, seccomp.PID_MARK)
        sys.argv[:] = sys.orig_argv[:] = [""]
        gc.collect()
        gc.freeze()

    def serve(self) -> None:
        """One iteration per job: fork, wait for the judge's word, kill, clean up, report."""
        while True:
            message, descriptors, _, _ = socket.recv_fds(self.control, REQUEST.size, 3)
            if not message:
                os._exit(0)
            pid = _fork()
            if pid == 0:
                self._become_box(descriptors, *REQUEST.unpack(message))
            for descriptor in descriptors:
                os.close(descriptor)
            if not self.control.recv(1):  # the judge says stop when it has what it needs, or sees the box end
                os._exit(0)
            status, user, system = self._end(pid)
            clean = self.scratch is None or self.scratch.clean()
            self.control.send(REPLY.pack(status, user, system, clean))

    def _end(self, pid: int) -> tuple[int, float, float]:
        """Kill the box and whatever else lives in the namespace; (wait status, user seconds, system seconds)."""
        if pid < 0:
            return SETUP_FAILED, 0.0, 0.0
        os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        user, system = usage.ru_utime, usage.ru_stime
        if self.tier == "C":
            _kill_children()
        if self.tier == "A":
            try:
                os.kill(-1, signal.SIGKILL)
                while True:
                    _, _, more = os.wait4(-1, 0)
                    user, system = user + more.ru_utime, system + more.ru_stime
            except (ProcessLookupError, ChildProcessError):
                pass
        return status, user, system

    def _become_box(self, descriptors: list[int], cpu_seconds: int, result_bytes: int, result_depth: int) -> None:
        """In the child: give up the last rights, then serve the program. Never returns."""
        try:
            link, out, err = descriptors
            os.dup2(out, 1)
            os.dup2(err, 2)
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))  # SIGXCPU first: a plain cause
            if self.tier != "A":
                kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            if self.box_filter:
                kernel.install_prepared_seccomp(os.getpid())
            os.dup2(link, CONTROL)  # the way to the judge's control socket closes here
            os.closerange(FIRST_PRIVATE, 64)
        except BaseException as error:
            os.write(CONTROL, b"box setup failed: " + str(error).encode()[:200])
            os._exit(SETUP_FAILED)
        try:
            box.serve(CONTROL, result_bytes, result_depth)
        finally:
            os._exit(0)


def _kill_children() -> None:
    """Tier C only: kill the processes a program left, which have become children of this subreaper."""
    while pids := [child for child in (host.descendant(os.getpid(), 1),) if child]:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _landlock(config: dict) -> int:
    """Reading the libraries, writing the scratch directory and /dev/null; nothing else."""
    if config["tier"] == "A":
        rules = [("/", kernel.READ_ONLY), (rootfs.SCRATCH_PARENT, kernel.READ_WRITE)]
    else:
        rules = [(path, kernel.READ_ONLY if files else kernel.LIST_ONLY) for path, files in rootfs.reading_rules()]
        others = [*config["packages"].values(), "/etc/ld.so.cache", "/dev/urandom", "/dev/zero"]
        rules += [(path, kernel.READ_ONLY) for path in others if os.path.exists(path)]
        rules.append((config["scratch"], kernel.READ_WRITE))
    return kernel.landlock_ruleset([*rules, ("/dev/null", kernel.DEVICE)])


def _set_resource_limits(limits: dict, num_own_tasks: int) -> None:
    """Limits that the boxes inherit. The one on CPU time is set in the box: it counts from the process's start."""
    for kind, value in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, limits["num_open_files"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_STACK, 64 << 20),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 256),
        (resource.RLIMIT_NPROC, limits["num_threads"] + limits["num_processes"] + num_own_tasks),
    ):
        resource.setrlimit(kind, (value, value))
