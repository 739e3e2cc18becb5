"""The zygote of one slot: a slim process that walls itself in once and then forks one box per job.

It obeys the judge over a socket (file descriptors in, exit status and resource usage out) and reads nothing that a box
wrote. In tier A it is process 1 of its own pid namespace, so its end is the end of everything in the slot.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import socket
import struct
import sys

from sandboxes import box, kernel, rootfs, seccomp

for _name in (  # what honest solutions import, paid for once per slot instead of once per job
    "typing collections itertools functools math heapq bisect string random copy operator re datetime json cmath"
).split():
    __import__(_name)

REPLY = struct.Struct("<iddi")  # wait status, user seconds, system seconds, maximum resident KiB
JOB_UID = 1000
SETUP_FAILED = 97
CONTROL, RULESET = 3, 4
NAMESPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWPID
)


def main(descriptor: int, config_text: str) -> None:
    """Wall this process in as `config` says and serve jobs until the judge goes away."""
    config = json.loads(config_text)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if descriptor != CONTROL:
        os.dup2(descriptor, CONTROL)
        os.close(descriptor)
    os.dup2(0, RULESET)  # reserves the number, so that received descriptors lie above it
    control = socket.socket(fileno=CONTROL)
    try:
        if config["tier"] == "A":
            _enter_namespaces(control, config)
        zygote = Zygote(control, config)
    except OSError as error:
        control.send(b"failed " + str(error).encode())
        os._exit(1)
    control.send(b"ready")
    zygote.serve()


def _enter_namespaces(control: socket.socket, config: dict) -> None:
    """New user, mount, net, ipc, uts and pid namespaces and a private root. Returns in process 1 of the new namespace."""
    privileged = os.geteuid() == 0 and config["map_ids"] is not None
    if privileged:  # real root may read what the mapped user may not (a Python below /root)
        kernel.unshare(kernel.CLONE_NEWNS)
        rootfs.enter(config["packages"])
    kernel.unshare(NAMESPACES)
    control.send(b"map")
    if control.recv(16) != b"mapped":
        raise OSError("the judge could not map user ids")
    if privileged:
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    else:
        rootfs.enter(config["packages"])
    child = os.fork()
    if child:
        _wait_for(child)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_for(child: int) -> None:
    """Stay as the parent of process 1, out of its namespace, and end with it."""
    os.closerange(0, 64)
    os.waitpid(child, 0)
    os._exit(0)


class Zygote:
    """Forks one box per request; keeps the scratch directory fresh."""

    def __init__(self, control: socket.socket, config: dict):
        self.tier = config["tier"]
        self.switch_user = config["switch_user"]
        self.control = control
        self.scratch_options: tuple[int, int] | None = None
        self.scratch_state: tuple[int, ...] = ()
        self.filters: dict[int, bytes] = {}
        self.limits_text, self.limits = b"", {}
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        if self.tier == "A":
            kernel.drop_bounding_set()
        os.umask(0o077)
        gc.collect()
        gc.freeze()

    def serve(self) -> None:
        """One iteration per job: fork, wait for the judge's word, kill, clean up, report."""
        while True:
            message, descriptors, _, _ = socket.recv_fds(self.control, 4096, 3)
            if not message:
                os._exit(0)
            self._prepare(message)
            pid = os.fork()
            if pid == 0:
                self._become_box(descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            if not self.control.recv(1):  # the judge says stop when it has what it needs, or sees the box end
                os._exit(0)
            self.control.send(REPLY.pack(*self._end(pid)))

    def _prepare(self, message: bytes) -> None:
        if message != self.limits_text:
            self.limits_text, self.limits = message, json.loads(message)
        if self.tier == "C":
            return
        processes = self.limits["num_processes"]
        if processes not in self.filters:
            self.filters[processes] = seccomp.build(kernel.MACHINE, processes)
        options = (self.limits["disk_bytes"], self.limits["num_inodes"])
        if self.tier == "A" and (options != self.scratch_options or rootfs.scratch_state() != self.scratch_state):
            self._renew_scratch(options)

    def _renew_scratch(self, options: tuple[int, int]) -> None:
        if self.scratch_options is not None:
            kernel.umount(rootfs.SCRATCH)
        rootfs.mount_scratch(*options)
        self.scratch_options, self.scratch_state = options, rootfs.scratch_state()
        rules = [("/", kernel.READ_ONLY), (rootfs.SCRATCH, kernel.READ_WRITE), ("/dev/null", kernel.DEVICE)]
        ruleset = kernel.landlock_ruleset(rules)
        if ruleset != RULESET:
            os.dup2(ruleset, RULESET, inheritable=False)
            os.close(ruleset)

    def _end(self, pid: int) -> tuple[int, float, float, int]:
        """Kill the box and whatever else lives in the namespace; (status, user, system, max resident)."""
        os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        user, system = usage.ru_utime, usage.ru_stime
        if os.getpid() == 1:
            try:
                os.kill(-1, signal.SIGKILL)
                while True:
                    _, _, more = os.wait4(-1, 0)
                    user, system = user + more.ru_utime, system + more.ru_stime
            except (ProcessLookupError, ChildProcessError):
                pass
        return status, user, system, usage.ru_maxrss

    def _become_box(self, descriptors: list[int]) -> None:
        """In the child: give up every right, then serve the program. Never returns."""
        try:
            link, out, err = descriptors
            os.dup2(out, 1)
            os.dup2(err, 2)
            os.dup2(link, CONTROL)
            self._lock_down()
            os.write(CONTROL, box.READY)
        except BaseException as error:
            os.write(CONTROL, b"F" + str(error).encode()[:200])
            os._exit(SETUP_FAILED)
        try:
            box.serve(CONTROL, self.limits["result_bytes"], self.limits["result_depth"])
        finally:
            os._exit(0)

    def _lock_down(self) -> None:
        limits = self.limits
        if self.tier == "A":
            os.chdir(rootfs.SCRATCH)
        self._set_resource_limits()
        if self.switch_user:
            os.setgroups([])
            os.setresgid(JOB_UID, JOB_UID, JOB_UID)
            os.setresuid(JOB_UID, JOB_UID, JOB_UID)
        kernel.drop_capabilities()
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if self.tier == "A":
            kernel.landlock_restrict(RULESET)
        os.closerange(RULESET, 256)
        sys.setrecursionlimit(1000)
        if self.tier != "C":
            kernel.install_seccomp(seccomp.bind_pid(self.filters[limits["num_processes"]], os.getpid()))

    def _set_resource_limits(self) -> None:
        limits = self.limits
        cpu = int(-(-limits["cpu_seconds"] // 1))
        num_tasks = limits["num_threads"] + limits["num_processes"] + (1 if self.switch_user else 3)
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))  # SIGXCPU first, so that the cause is plain
        for kind, value in (
            (resource.RLIMIT_AS, limits["memory_bytes"]),
            (resource.RLIMIT_FSIZE, limits["file_bytes"]),
            (resource.RLIMIT_NOFILE, limits["num_open_files"]),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_STACK, 64 << 20),
            (resource.RLIMIT_MEMLOCK, 0),
            (resource.RLIMIT_MSGQUEUE, 0),
            (resource.RLIMIT_SIGPENDING, 256),
            (resource.RLIMIT_NPROC, num_tasks),
        ):
            resource.setrlimit(kind, (value, value))
