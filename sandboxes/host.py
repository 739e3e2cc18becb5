"""What the judge asks of the host on behalf of a slot: user ids, a cgroup, a scratch directory, facts from /proc.

Everything a slot leaves on the host bears the judge's pid in its name, so that it can be swept after a kill.
Used outside the confinement only; raises OSError.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from typing import Any

from sandboxes.scratch import Scratch

_CGROUP_ROOT = "/sys/fs/cgroup"
_SLACK_BYTES = 96 << 20  # the zygote itself and kernel memory


class Cgroup:
    """A memory and process limit around one slot, where the machine lets us make one (version 1 or 2)."""

    def __init__(self, paths: dict[str, str]):
        self.paths = paths

    @classmethod
    def create(cls, name: str, limits: dict[str, Any]) -> Cgroup | None:
        """A new cgroup, or None where that is not possible."""
        num_bytes, num_tasks = slot_size(limits)
        made: dict[str, str] = {}
        for controller, (parent, files) in _own_cgroups(num_bytes, num_tasks).items():
            path = os.path.join(parent, name)
            _remove_stale(parent)
            try:
                os.mkdir(path)
                made[controller] = path
                for file, value in files.items():
                    _write(os.path.join(path, file), value)
            except OSError:
                cls(made).remove()
                return None
        return cls(made) if made else None

    def add(self, pid: int) -> None:
        """Move a process (0: the calling one) and all it will start into the cgroup."""
        for path in self.paths.values():
            _write(os.path.join(path, "cgroup.procs"), str(pid))

    def num_oom_kills(self) -> int:
        """How often the kernel killed something in here for lack of memory."""
        file = {"memory": "memory.oom_control", "unified": "memory.events"}
        for controller, path in self.paths.items():
            if controller in file:
                with open(os.path.join(path, file[controller])) as lines:
                    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
        return 0

    def remove(self) -> None:
        """Delete the cgroup; waits up to five seconds for its last process to be gone."""
        for path in self.paths.values():
            _remove_cgroup(path)


def slot_size(limits: dict[str, Any]) -> tuple[int, int]:
    """(bytes of memory, tasks) that a slot may use in all: its worker, its files and the zygote."""
    num_bytes = limits["memory_bytes"] * (1 + limits["num_processes"]) + limits["disk_bytes"] + _SLACK_BYTES
    return num_bytes, limits["num_threads"] + limits["num_processes"] + 8


def sweep(judge_pid: int) -> None:
    """Delete what the slot of a killed judge left on the host."""
    prefix = slot_name(judge_pid)
    for parent, _ in _own_cgroups(0, 0).values():
        for name in os.listdir(parent) if os.path.isdir(parent) else []:
            if name.startswith(prefix):
                _remove_cgroup(os.path.join(parent, name))
    for name in os.listdir(tempfile.gettempdir()):
        if name.startswith(prefix):
            path = os.path.join(tempfile.gettempdir(), name)
            with contextlib.suppress(OSError):
                Scratch(path).remove()  # not rmtree, which recurses as deep as a program has nested directories


def sweep_stale() -> None:
    """Delete scratch directories whose judge is gone, left by a kill of judge and trainer together."""
    for name in os.listdir(tempfile.gettempdir()):
        words = name.split("-")
        if words[0] != "sandbox" or len(words) < 3 or not words[1].isdigit() or os.path.exists(f"/proc/{words[1]}"):
            continue
        with contextlib.suppress(OSError):
            keeper = Scratch(os.path.join(tempfile.gettempdir(), name))
            if keeper.lock():  # not that of a judge in another container, whose process we cannot see
                keeper.remove()
            else:
                keeper.close()


def reap_session(session: int, seconds: float = 2.0) -> None:
    """Collect what a killed judge has left to this process, if it is the one to which orphans fall: process 1."""
    deadline = time.monotonic() + seconds
    while (orphans := _children_of_session(session)) and time.monotonic() < deadline:
        for pid in orphans:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)


def reap_orphans(seconds: float = 2.0) -> None:
    """Collect all children of this process, which has none that it still needs."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.002)


def _children_of_session(session: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
                if int(fields[1]) == os.getpid() and int(fields[3]) == session:
                    found.append(int(name))
    return found


def slot_name(judge_pid: int) -> str:
    """Prefix of everything that a judge's slot leaves on the host."""
    return f"sandbox-{judge_pid}-"


def make_scratch(uid: int | None) -> str:
    """An empty directory for the programs of a slot without a private file system."""
    sweep_stale()
    path = tempfile.mkdtemp(prefix=slot_name(os.getpid()))
    if uid is not None:
        os.chown(path, uid, uid)
    return path


def id_mapping() -> tuple[int, int] | None:
    """(first host id, count) of otherwise unused ids for a slot, or None where only the own id can be mapped."""
    if os.geteuid() != 0:
        return None
    try:
        with open("/proc/self/uid_map") as file:
            inside, _, count = (int(word) for word in file.readline().split())
    except (OSError, ValueError):
        return None
    for base in (2_000_000_000 + os.getpid() % 1_000_000 * 2000, 1_500_000, 60_000):
        if inside <= base and base + 2000 < inside + count:
            return base, 2000
    return None


def map_ids(pid: int, mapping: tuple[int, int] | None) -> None:
    """Fill in the id maps of the user namespace that process `pid` has just made."""
    if mapping is not None:
        base, count = mapping
        lines = {"uid_map": f"0 {base} {count}", "gid_map": f"0 {base} {count}"}
    else:
        lines = {"setgroups": "deny", "uid_map": f"1000 {os.geteuid()} 1", "gid_map": f"1000 {os.getegid()} 1"}
    for name, text in lines.items():
        _write(f"/proc/{pid}/{name}", text)


def spare_uid(needed: list[str]) -> int | None:
    """A user id for programs without namespaces, or None if we may not switch or it could not read `needed`."""
    if os.geteuid() != 0:
        return None
    for path in needed:
        while path != "/":
            if not os.stat(path).st_mode & 0o001:
                return None
            path = os.path.dirname(path)
    mapping = id_mapping()
    return None if mapping is None else mapping[0] + 1 + os.getpid() % (mapping[1] - 1)


def descendant(pid: int, generations: int) -> int:
    """A process that descends from `pid` by so many generations, or 0. Reads all of /proc: for slow paths only."""
    if generations == 0:
        return pid
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # a program may call itself what is no text
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
    for _ in range(generations):
        pid = next((child for child, parent in parents.items() if parent == pid), 0)
    return pid


def cpu_and_waiting_seconds(pid: int) -> tuple[float, float]:
    """CPU seconds of process `pid`, and how long its unluckiest thread waited for a CPU; zeros if it is gone."""
    if pid <= 0:
        return 0.0, 0.0
    cpu = waiting = 0.0
    try:
        cpu = time.clock_gettime((~pid << 3) | 2)  # the process's CPU clock, as clock_getcpuclockid(3) makes it
        for task in os.listdir(f"/proc/{pid}/task")[:64]:
            with open(f"/proc/{pid}/task/{task}/schedstat") as file:
                waiting = max(waiting, int(file.read().split()[1]) / 1e9)
    except (OSError, ValueError, IndexError):
        pass
    return cpu, waiting


def is_runnable(pid: int) -> bool:
    """Whether a thread of process `pid` runs, waits for a CPU or for a disk."""
    try:
        for task in os.listdir(f"/proc/{pid}/task")[:64]:
            with open(f"/proc/{pid}/task/{task}/stat", "rb") as file:
                if file.read().rpartition(b")")[2].split()[0] in b"RD":
                    return True
    except (OSError, IndexError):
        pass
    return False


def num_threads(pid: int) -> int:
    """Threads of process `pid`; 0 if it is gone."""
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def disk_usage(path: str, enough: int) -> tuple[int, int]:
    """(entries, bytes) below `path`; stops counting after `enough` entries, or where a directory cannot be read."""
    entries = num_bytes = 0
    unread: list[OSError] = []  # a program can make the path too long, or take the mode away
    for directory, names, files in os.walk(path, onerror=unread.append):
        for name in files:
            try:
                num_bytes += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except OSError:
                continue
        entries += len(names) + len(files)
        if entries > enough:
            break
    hidden = any(not isinstance(error, FileNotFoundError) for error in unread)
    return (enough + 1 if hidden else entries), num_bytes


def bytes_written(pid: int) -> int:
    """Bytes that process `pid` has made the kernel write to disks, deleted files included; 0 where we may not know."""
    try:
        with open(f"/proc/{pid}/io") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("write_bytes:"))
    except (OSError, StopIteration):
        return 0


def _own_cgroups(num_bytes: int, num_tasks: int) -> dict[str, tuple[str, dict[str, str]]]:
    """{controller: (own cgroup's directory, files to write in a child)}."""
    try:
        with open("/proc/self/cgroup") as file:
            lines = [line.strip().split(":", 2) for line in file]
    except OSError:
        return {}
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for _, controllers, path in lines:
        for name in controllers.split(","):
            if name == "memory":
                found[name] = _CGROUP_ROOT + "/memory" + path, {"memory.limit_in_bytes": str(num_bytes)}
            elif name == "pids":
                found[name] = _CGROUP_ROOT + "/pids" + path, {"pids.max": str(num_tasks)}
    if not found:
        files = {"memory.max": str(num_bytes), "memory.swap.max": "0", "pids.max": str(num_tasks)}
        found = {"unified": (_CGROUP_ROOT + path, files) for _, names, path in lines if not names}  # noqa: B035
    return found


def _remove_stale(parent: str) -> None:
    """Delete empty cgroups of judges that are gone, left by a kill of judge and trainer together."""
    with contextlib.suppress(OSError):
        for name in os.listdir(parent):
            words = name.split("-")
            if words[0] == "sandbox" and len(words) == 3 and not os.path.exists(f"/proc/{words[1]}"):
                with contextlib.suppress(OSError):
                    os.rmdir(os.path.join(parent, name))


def _remove_cgroup(path: str) -> None:
    for _ in range(500):
        try:
            os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
