"""Ten thousand mixed jobs, one in twenty hostile: in order, none lost, nothing left, helpers' memory flat."""

import os
import random
import signal
import threading
from dataclasses import replace

import pytest
from sandbox_helpers import descendants, helpers, hostile_programs, job_of, left_on_host, resident_kib, wait_until

from sandboxes import Job, Limits, Outcome, Sandbox, SandboxError, Verdict

NUM_JOBS = 10_000
LIMITS = Limits(cpu_seconds=0.5, wall_seconds=20.0, idle_seconds=0.3)
BRIEF = replace(LIMITS, cpu_seconds=0.1)  # a job has to be over between two kills
SLOW = {"timeout_wall", "timeout_cpu", "memory"}


def mixed_jobs(num_jobs: int, excluded: str = "") -> tuple[list[Job], list[bool | None]]:
    """Jobs and whether each must pass (None: hostile, must not pass). `excluded`: an outcome no program aims at."""
    generator = random.Random(7)
    programs = [(source, outcomes) for _, source, outcomes in hostile_programs() if excluded not in outcomes]
    hostile = [job_of(source) for source, outcomes in programs if not outcomes & SLOW]
    slow = [job_of(source) for source, outcomes in programs if outcomes & SLOW]
    jobs: list[Job] = []
    expected: list[bool | None] = []
    for n in range(num_jobs):
        if n % 20 == 7:
            jobs.append(generator.choice(slow if n % 1000 == 7 else hostile))
            expected.append(None)
        else:
            right = generator.random() < 0.5
            source = f"import math\ndef f(x):\n    return x + {n if right else n + 1}\n"
            jobs.append(Job(source, "f", calls=[((1,), {}, 1 + n), ((2,), {}, 2 + n)]))
            expected.append(right)
    return jobs, expected


def disagreements(results: list[Verdict | SandboxError], expected: list[bool | None]) -> list[object]:
    """Scored jobs whose verdict is not the one due at their place in the batch."""
    pairs = [pair for pair in zip(results, expected, strict=True) if isinstance(pair[0], Verdict)]
    return [result for result, due in pairs if result.passed != bool(due) or (due is False and not is_wrong(result))]


def is_wrong(verdict: Verdict) -> bool:
    return verdict.outcome is Outcome.WRONG_ANSWER


@pytest.mark.slow
def test_ten_thousand_jobs_leave_nothing_behind():
    before, files_before = set(descendants()), set(os.listdir("/proc/self/fd"))
    jobs, expected = mixed_jobs(NUM_JOBS)
    with Sandbox(num_slots=2, limits=LIMITS) as box:
        warm = box.run_batch(jobs[:500])
        memory = {pid: resident_kib(pid) for pid in helpers("judge") + helpers("zygote")}
        running = set(descendants())
        results = warm + box.run_batch(jobs[500:])
        assert disagreements(results, expected) == []
        assert [result for result in results if isinstance(result, SandboxError)] == []
        kept = [pid for pid in memory if os.path.exists(f"/proc/{pid}")]
        assert set(helpers("judge")) <= set(kept)
        assert {pid: resident_kib(pid) - memory[pid] for pid in kept if resident_kib(pid) > memory[pid] + 8192} == {}
        assert len(set(descendants())) <= len(running)
        judges = helpers("judge")
        assert all(len(os.listdir(f"/proc/{pid}/fd")) <= 10 for pid in judges)
    assert set(descendants()) <= before
    assert left_on_host(judges) == []
    assert set(os.listdir("/proc/self/fd")) <= files_before


class Killer:
    """Kills random judges, zygotes and workers of the sandboxes started after it, until told to stop."""

    def __init__(self, seed: int):
        self.others, self.random = set(descendants()), random.Random(seed)
        self.kills: dict[str, int] = {"judge": 0, "zygote": 0, "worker": 0}
        self.judges: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(self.random.uniform(0.2, 1.2)):
            self.judges |= {pid for pid in helpers("judge") if pid not in self.others}
            role = self.random.choice([*self.kills])
            victims: list[int] = []
            for _ in range(20 if role == "worker" else 1):  # a worker lives for a millisecond
                victims = victims or [pid for pid in helpers(role) if pid not in self.others]
            if victims:
                try:
                    os.kill(self.random.choice(victims), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self.kills[role] += 1

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.slow
def test_ten_thousand_jobs_while_helpers_are_killed_at_random():
    before, files_before = set(descendants()), set(os.listdir("/proc/self/fd"))
    jobs, expected = mixed_jobs(NUM_JOBS, excluded="timeout_wall")  # 20 s without a kill are not to be had
    killer = Killer(seed=3)
    with Sandbox(num_slots=2, limits=BRIEF) as box:
        with killer:
            results = box.run_batch(jobs)
            while sum(killer.kills.values()) < 15 or min(killer.kills.values()) == 0:
                results, expected = results + box.run_batch(jobs), expected + expected[:NUM_JOBS]
        lost = [str(result) for result in results if isinstance(result, SandboxError)]
        print(f"{killer.kills} killed, {len(lost)} of {len(results)} jobs unscored: {lost[:3]}")
        assert len(results) == len(expected)
        assert disagreements(results, expected) == []
        assert lost == []
        assert disagreements(box.run_batch(jobs[:200]), expected[:200]) == []
        assert all(len(os.listdir(f"/proc/{pid}/fd")) <= 10 for pid in helpers("judge"))
        assert max(resident_kib(pid) for pid in helpers("judge") + helpers("zygote")) < 65536
        killer.judges |= {pid for pid in helpers("judge") if pid not in killer.others}
    wait_until(lambda: set(descendants()) <= before)
    assert left_on_host(sorted(killer.judges)) == []
    assert set(os.listdir("/proc/self/fd")) <= files_before
