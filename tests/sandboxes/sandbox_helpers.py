"""The catalogue of hostile programs, and what tests count on the host: processes, cgroups, files, memory."""

import os
import pathlib
import re
import tempfile
import time

from sandboxes import Job

CATALOGUE = pathlib.Path(__file__).parent / "hostile"
OPEN_TEST = "def check(candidate):\n    assert candidate(20) == 21\n    assert candidate(3) == 4\n"
SEALED_TEST = "def check(candidate):\n    assert candidate(20) == 73491823901\n    assert candidate(3) == 88120394417\n"


def descendants(pid: int | None = None) -> list[int]:
    """All living descendants of a process (default: this one)."""
    children: dict[int, list[int]] = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, queue = [], [pid or os.getpid()]
    while queue:
        queue += (more := children.get(queue.pop(), []))
        found += more
    return found


def helpers(role: str) -> list[int]:
    """Our descendants that run as `role`: judge, zygote (with the workers, which are its forks) or worker."""
    found = []
    for pid in descendants():
        try:
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        is_helper = any(word.endswith(b"helper_main.py") for word in words)
        if is_helper and (b"zygote" if role == "worker" else role.encode()) in words:
            found.append(pid)
    if role == "worker":  # in tier A below a zygote that is below another
        parents = {pid: parent_of(pid) for pid in found}
        return [pid for pid, parent in parents.items() if parents.get(parent) in parents]
    return found


def parent_of(pid: int) -> int:
    """Parent of a process; 0 if the process is gone."""
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except OSError:
        return 0


def resident_kib(pid: int) -> int:
    """Resident memory of a process."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def left_on_host(judge_pids: list[int]) -> list[str]:
    """Cgroups and scratch directories that bear the pid of one of our judges."""
    prefixes = tuple(f"sandbox-{pid}-" for pid in judge_pids)
    roots = [pathlib.Path(tempfile.gettempdir())]
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        roots.append(pathlib.Path(f"/sys/fs/cgroup/{controllers.split('=')[-1]}{path}"))
    return [str(p) for root in roots if root.is_dir() for p in root.iterdir() if p.name.startswith(prefixes)]


def hostile_programs() -> list[tuple[str, str, set[str]]]:
    """(name, source, acceptable outcomes) of every program in the catalogue."""
    found = []
    for path in sorted(CATALOGUE.glob("*.txt")):
        for header, source in re.findall(r"^%% (.*)\n((?:(?!%%).*\n)*)", path.read_text(), re.M):
            name, _, outcomes = header.partition(" | ")
            found.append((f"{path.stem}/{name}", source, set(outcomes.split())))
    return found


def job_of(source: str) -> Job:
    """Programs that can tell success themselves answer x + 1; the others would have to know the sealed numbers."""
    return Job(source, "f", OPEN_TEST if "x + 1" in source else SEALED_TEST)


def wait_until(holds, seconds: float = 10.0) -> None:
    """Wait for what ends by itself. Fails if it does not."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
