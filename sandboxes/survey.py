"""Finds out, by doing, what this machine's sandbox holds: tries the forbidden things from inside a worker.

A tier is claimed only if everything it promises was really denied. Used whenever a sandbox starts.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from sandboxes.contract import Job, Limits, Outcome, SandboxError, Verdict

# Runs in a worker, as untrusted as anything else there: what it reports as possible is believed: the safe side.
ATTEMPTS = """
import ctypes, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)

def succeeds(act):
    try:
        return act() not in (False, -1)
    except Exception:
        return False

def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)

def write(path):
    with open(path + "/sandbox-probe", "w") as file:
        file.write("x")
    os.unlink(path + "/sandbox-probe")

def big_file():
    file = os.open("big", os.O_CREAT | os.O_WRONLY)
    os.lseek(file, FILE, 0)
    os.write(file, b"x")

def change_mode():
    mode = os.stat(os.__file__).st_mode & 0o777
    os.chmod(os.__file__, mode ^ 1)
    changed = os.stat(os.__file__).st_mode & 0o777 != mode
    os.chmod(os.__file__, mode)
    return changed

def datagram():
    a, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

def survey():
    attempts = {
        "start a process": fork,
        "open a socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close(),
        "open a Unix socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "send datagrams by name": datagram,
        "read /proc": lambda: open("/proc/self/stat").read(),
        "read /etc/passwd": lambda: open("/etc/passwd").read(),
        "list the host's root": lambda: "proc" in os.listdir("/"),
        "write outside the scratch directory": lambda: any([succeeds(lambda: write(p)) for p in WRITABLE]),
        "signal another process": lambda: os.kill(os.getppid(), 0),
        "make a user namespace": lambda: libc.unshare(0x10000000),
        "trace a process": lambda: libc.ptrace(16, os.getppid(), 0, 0),
        "make a shared memory segment": lambda: libc.shmget(1234, 4096, 0o1600),
        "raise its limits": lambda: __import__("resource").setrlimit(7, (4096, 4096)),
        "exceed its memory": lambda: bytearray(MEMORY),
        "exceed its file size": big_file,
        "change modes of the library": change_mode,
    }
    return json.dumps([name for name, act in attempts.items() if succeeds(act)])
"""
_WRITABLE = ("/", "/dev/shm", "/var/tmp", "/usr/lib", "/home", "/root", "/run")


@dataclass(frozen=True)
class Report:
    """The tier in use ("A", "B", "C", "remote", "none"), what it lets through, why each better one is out of reach."""

    tier: str
    missing: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()  # layers of defence this machine could not add
    backend: str = "local"

    def as_dict(self) -> dict[str, object]:
        """The report as plain data, for run records."""
        return {
            "tier": self.tier,
            "backend": self.backend,
            "missing": list(self.missing),
            "refused": dict(self.refused),
            "lacks": list(self.lacks),
        }


def survey(run: Callable[[Job], Verdict], limits: Limits) -> tuple[str, ...]:
    """What a program that `run` judges could do that tier A denies. Raises SandboxError if the survey itself fails."""
    writable = tuple(path for path in _WRITABLE if not (limits.num_processes and path == "/dev/shm"))
    constants = f"WRITABLE, MEMORY, FILE = {writable!r}, {limits.memory_bytes}, {limits.file_bytes}\n"
    roomy = dataclasses.replace(limits, cpu_seconds=10.0, wall_seconds=60.0, idle_seconds=30.0)
    source = constants + ATTEMPTS + "\nprint(survey())\n"
    verdict = run(Job(source, "survey", calls=[((), {}, None)], limits=roomy))
    if verdict.outcome is not Outcome.WRONG_ANSWER:
        raise SandboxError(f"the survey ended as {verdict.outcome.value}: {verdict.detail} {verdict.stderr[-500:]}")
    allowed = {"start a process"} if limits.num_processes else set()
    return tuple(item for item in json.loads(verdict.stdout.splitlines()[-1]) if item not in allowed)
