"""The zygote of one slot: a slim process that confines itself completely and then forks one worker per job.

It obeys the judge over a socket (file descriptors in, exit status and CPU time out) and reads nothing a worker wrote.
All isolation but the last step is done once, here, and inherited. In tier A it is process 1 of its own pid namespace.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import struct
import sys
import time
from _signal import SIGKILL
from _socket import socket
from collections.abc import Callable

from sandboxes import confinement, kernel, preload, scratch, seccomp, worker

REPLY = struct.Struct("<idd??")  # wait status, user seconds, system seconds, slot is clean, worker had ended by itself
REQUEST = struct.Struct("<III")  # CPU limit in whole seconds, answer bytes, answer depth
KILL, EXPECT_END = b"K", b"E"  # end the worker now; or: it has closed its channel, so it is about to end by itself
REQUEST_SIZE = REQUEST.size
SETUP_FAILED = 97
OUTPUT, CHANNEL, CONTROL, SCRATCH = 1, 3, 4, 5  # descriptors; OUTPUT to CHANNEL are free while no worker runs
_BOX_DESCRIPTORS = struct.pack("3i", *range(OUTPUT, CHANNEL + 1))  # where stdout, stderr and the channel arrive
_END_SECONDS = 1.0  # between the close of a dying worker's channel and its end
_fork = ctypes.PyDLL(None).fork  # os.fork without Python's at-fork work, which a single-threaded process does not need


def main(descriptor: int, config_text: str) -> None:
    """Confine this process as `config` says and serve jobs until the judge goes away."""
    config = json.loads(config_text)
    control = socket(fileno=_moved(descriptor, CONTROL))
    os.environ.clear()
    try:
        _start(control, config).serve()
    except (BrokenPipeError, ConnectionResetError):  # the judge is gone
        os._exit(0)
    except OSError as error:
        control.send(b"failed: " + str(error).encode())
        os._exit(1)


def _moved(descriptor: int, place: int) -> int:
    """`place`, to which `descriptor` is moved."""
    if descriptor != place:
        os.dup2(descriptor, place, inheritable=False)
        os.close(descriptor)
    return place


def _start(control: socket, config: dict) -> Zygote:
    """The confined zygote; on failure tells the judge why and exits."""
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, SIGKILL)
        if control.recv(16) != b"go":  # now in its cgroup
            os._exit(0)
        if config["builder"] == "zygote":
            confinement.enter_namespaces(control, config)
        else:
            if config["builder"] == "bubblewrap":
                confinement.finish_bubblewrap(config["limits"])
            os.chdir(config["scratch"])
        zygote = Zygote(control, config)
    except OSError as error:
        control.send(b"failed " + str(error).encode())
        os._exit(1)
    return zygote


class Zygote:
    """Forks one worker per request; keeps the scratch directory empty between jobs."""

    def __init__(self, control: socket, config: dict):
        self.control, self.tier, limits = control, config["tier"], config["limits"]
        self.is_init = os.getpid() == 1
        os.umask(0o077)
        preload.import_packages(config["packages"], config["imports"])
        preload.warm_up()
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        if self.tier == "C":
            kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        if os.geteuid() == 0:
            kernel.drop_bounding_set()
        confinement.set_resource_limits(limits, config["num_own_tasks"])
        self.without_landlock = self.tier == "A" and kernel.landlock_abi() == 0  # A has its own root as well
        ruleset = None if self.tier == "C" or self.without_landlock else confinement.landlock_ruleset(config)
        if config["job_uid"] is not None:
            confinement.switch_user(config["job_uid"])
        kernel.drop_capabilities()
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, SIGKILL)  # again: a change of user clears it
        self.worker_filter = b""
        if ruleset is not None:
            kernel.landlock_restrict(ruleset)
            os.close(ruleset)
        if self.tier != "C":
            kernel.install_seccomp(seccomp.zygote_filter(kernel.MACHINE, self.tier == "A", limits["num_processes"]))
            self.worker_filter = seccomp.worker_filter(kernel.MACHINE, limits["num_processes"])
        self.scratch = scratch.Scratch(".", SCRATCH) if self.tier == "A" else None  # elsewhere the judge cleans up
        self.become_worker = _worker_entry(self.tier, self.worker_filter)
        sys.argv[:] = sys.orig_argv[:] = [""]
        gc.collect()
        preload.fill_pools()
        gc.freeze()

    def serve(self) -> None:
        """One iteration per job: fork, wait for the judge's word, kill, clean up, report."""
        control, closerange = self.control, os.closerange
        become_worker, fork = self.become_worker, _fork
        recvmsg, recv, send = control.recvmsg, control.recv, control.send
        closerange(OUTPUT, CHANNEL + 1)
        send(b"ready without landlock" if self.without_landlock else b"ready")
        while True:
            message, ancillary, _, _ = recvmsg(REQUEST_SIZE, 64)
            if not message:
                os._exit(0)
            if not ancillary or ancillary[0][2] != _BOX_DESCRIPTORS:
                raise OSError("descriptors are not where they should be")
            pid = fork()
            if pid == 0:
                become_worker(message)
            closerange(OUTPUT, CHANNEL + 1)
            word = recv(1)  # the judge has what it needs, or sees the worker end
            if not word:
                os._exit(0)
            if pid < 0:
                send(b"failed: the zygote could not fork a worker")
                continue
            had_ended = word == EXPECT_END and _ends_by_itself(pid)
            status, user, system = self._end(pid)
            clean = self.scratch is None or self.scratch.clean()
            send(REPLY.pack(status, user, system, clean, had_ended))

    def _end(self, pid: int) -> tuple[int, float, float]:
        """Kill the worker and whatever else lives in the namespace; (wait status, user seconds, system seconds)."""
        os.kill(pid, SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        user, system = usage.ru_utime, usage.ru_stime
        if self.tier == "C":
            _kill_children()
        if self.is_init:
            try:
                os.kill(-1, SIGKILL)
                while True:
                    _, _, more = os.wait4(-1, 0)
                    user, system = user + more.ru_utime, system + more.ru_stime
            except (ProcessLookupError, ChildProcessError):
                pass
        return status, user, system


def _worker_entry(tier: str, worker_filter: bytes) -> Callable[[bytes], None]:
    """What a forked child does: give up the last rights, then serve the program. Never returns.

    All that it uses is bound beforehand: every object that it touches costs the child a copy of a page.
    """
    confine = kernel.prepared_seccomp(worker_filter, seccomp.PID_MARK) if worker_filter else None
    limit_cpu, unpack, serve = kernel.prepared_cpu_limit(), REQUEST.unpack, worker.serve
    getpid, closerange, close, open_file = os.getpid, os.closerange, os.close, os.open
    die_with_zygote = tier != "A"

    def become_worker(request: bytes) -> None:
        try:
            cpu_seconds, result_bytes, result_depth = unpack(request)
            limit_cpu(cpu_seconds)
            if die_with_zygote:
                kernel.prctl(kernel.PR_SET_PDEATHSIG, SIGKILL)
            if confine is not None:
                confine(getpid())
            close(0)
            open_file("/dev/null", 0)  # stdin anew: an open file keeps flags and locks, which the next worker would see
            closerange(CONTROL, 64)  # the way to the judge's control socket closes here
        except BaseException as error:
            os.write(CONTROL, b"failed: a worker could not be set up: " + str(error).encode()[:200])
            os._exit(SETUP_FAILED)
        try:
            serve(CHANNEL, result_bytes, result_depth)
        finally:
            os._exit(0)

    return become_worker


def _ends_by_itself(pid: int) -> bool:
    """Whether the worker ends without our doing. A program that has only closed its channel does not."""
    deadline = time.monotonic() + _END_SECONDS
    while True:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0005)


def _kill_children() -> None:
    """Tier C only: kill the processes a program left, which have become children of this subreaper."""
    from sandboxes import host

    while pids := [child for child in (host.descendant(os.getpid(), 1),) if child]:
        for pid in pids:
            os.kill(pid, SIGKILL)
            os.waitpid(pid, 0)
