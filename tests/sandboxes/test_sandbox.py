"""The contract of Sandbox: order, concurrency, limits, errors, and recovery when its own processes are killed."""

import asyncio
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pytest
from sandbox_helpers import descendants, helpers, left_on_host, resident_kib, wait_until

from sandboxes import Job, JobError, Limits, Outcome, Sandbox, SandboxError, Verdict, host, probe, scratch

RIGHT = "def f(x):\n    return x + 1\n"
TEST = "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(5) == 6\n"


MANY_THREADS = "import threading, time\nfor _ in range(9):\n    threading.Thread(target=time.sleep, args=(9,)).start()"


def changed_limit(limits: Limits) -> str:
    """Name of the limit that differs from its default."""
    usual = Limits().as_dict()
    return next(name for name, value in limits.as_dict().items() if value != usual[name])


def adds(n: int) -> Job:
    """A job that only the program adding `n` passes."""
    return Job(f"def f(x):\n    return x + {n}\n", "f", calls=[((1,), {}, 1 + n)])


def test_batch_results_come_in_order(sandbox):
    jobs = [Job(f"print({n})\ndef f(x):\n    return {n % 3}\n", "f", calls=[((0,), {}, 0)]) for n in range(60)]
    results = sandbox.run_batch(jobs)
    assert [result.stdout for result in results] == [f"{n}\n" for n in range(60)]
    assert [result.passed for result in results] == [n % 3 == 0 for n in range(60)]


def test_async_and_threads_share_one_sandbox(sandbox):
    async def gather():
        return await asyncio.gather(*[sandbox.run_async(adds(n)) for n in range(20)])

    assert all(verdict.passed for verdict in asyncio.run(gather()))
    passed = []
    threads = [threading.Thread(target=lambda n=n: passed.append(sandbox.run(adds(n)).passed)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert passed == [True] * 12


def test_an_empty_batch_is_empty(sandbox):
    assert sandbox.run_batch([]) == []


def test_a_job_error_stands_in_the_batch_and_is_raised_by_run(sandbox):
    broken = Job(RIGHT, "f", "def check(candidate):\n    unknown\n")
    results = sandbox.run_batch([adds(1), broken, adds(2)])
    assert [type(result) for result in results] == [Verdict, JobError, Verdict]
    with pytest.raises(SandboxError):
        sandbox.run(broken)


@pytest.mark.parametrize("source", ["#" * 300_000, "x = '\ud800'", "#" + "é" * 200_000, "a" * (30 << 20)], ids=len)
def test_too_large_or_undecodable_sources_are_rejected_unrun(sandbox, source):
    verdict = sandbox.run(Job(source, "f", TEST))
    assert verdict.outcome is Outcome.REJECTED
    assert verdict.cpu_seconds == 0


def test_null_bytes_are_a_load_error(sandbox):
    assert sandbox.run(Job("x = 1\x00\n", "f", TEST)).outcome is Outcome.LOAD_ERROR


def test_output_is_returned_and_cut(sandbox):
    source = "import sys\nprint('out')\nprint('err', file=sys.stderr)\ndef f(x):\n    print(x)\n    return x + 1\n"
    verdict = sandbox.run(Job(source, "f", TEST))
    assert (verdict.stdout, verdict.stderr) == ("out\n1\n5\n", "err\n")
    limits = Limits(output_bytes=100)
    flood = sandbox.run(Job("print('é' * 500)\n" + RIGHT, "f", TEST, limits=limits))
    assert flood.outcome is Outcome.OUTPUT_LIMIT
    assert len(flood.stdout.encode()) <= 103  # a character cut in half becomes one of three bytes


def test_exit_status_is_the_kernels(sandbox):
    assert sandbox.run(Job("import os\nos._exit(7)\n", "f", TEST)).exit_status == 7
    assert sandbox.run(Job("import ctypes\nctypes.string_at(0)\n", "f", TEST)).exit_status == -signal.SIGSEGV
    assert sandbox.run(Job(RIGHT, "f", TEST)).exit_status is None


@pytest.mark.parametrize(
    ("limits", "source", "outcome"),
    [
        (Limits(cpu_seconds=0.3), "while True: pass", Outcome.TIMEOUT_CPU),
        (Limits(idle_seconds=0.3), "import time\ntime.sleep(99)", Outcome.TIMEOUT_WALL),
        (Limits(wall_seconds=0.5), "import time\nwhile True: time.sleep(0.01)", Outcome.TIMEOUT_WALL),
        (Limits(memory_bytes=200 << 20), "x = bytearray(250 << 20)", Outcome.MEMORY),
        (Limits(num_open_files=8), "x = [open('/dev/null') for _ in range(9)]", Outcome.LOAD_ERROR),
        (Limits(file_bytes=1000), "open('a', 'w').write('x' * 2000)\nopen('a').read(2)", Outcome.LOAD_ERROR),
        (Limits(num_threads=2), MANY_THREADS, Outcome.LOAD_ERROR),
        (Limits(num_inodes=5), "for n in range(9): open(str(n), 'w').close()", Outcome.LOAD_ERROR),
        (Limits(disk_bytes=1 << 20), "for n in range(3): open(str(n), 'wb').write(bytes(1 << 19))", Outcome.LOAD_ERROR),
        (Limits(result_bytes=100), "def f(x): return 'x' * 200", Outcome.PROTOCOL),
        (Limits(result_depth=3), "def f(x): return [[[[1]]]]", Outcome.PROTOCOL),
        (Limits(source_bytes=10), "# eleven bytes", Outcome.REJECTED),
    ],
    ids=lambda value: changed_limit(value) if isinstance(value, Limits) else "",
)  # fmt: skip
def test_every_limit_bites(sandbox, limits, source, outcome):
    if sandbox.tier != "A":
        pytest.skip("some limits are the kernel's in tier A only")
    assert sandbox.run(Job(source, "f", TEST, limits=limits)).outcome is outcome
    assert sandbox.run(Job(RIGHT, "f", TEST)).passed


def test_child_processes_may_be_allowed_and_are_gone_afterwards(sandbox):
    if sandbox.tier != "A":
        pytest.skip("tier A only")
    source = (
        "import os, time\ndef f(x):\n    r, w = os.pipe()\n    if os.fork() == 0:\n        os.write(w, b'1')\n"
        "        time.sleep(60)\n    return x + int(os.read(r, 1))\n"
    )
    assert sandbox.run(Job(source, "f", TEST, limits=Limits(num_processes=3))).passed
    assert not sandbox.run(Job(source, "f", TEST)).passed
    time.sleep(0.1)
    zygotes = [pid for pid in helpers("zygote") if not set(descendants(pid)) & set(helpers("zygote"))]
    assert [child for pid in zygotes for child in descendants(pid)] == []


def test_nothing_persists_between_jobs(strict_sandbox):
    leave = (
        "import os, builtins, sys, tempfile\nopen('left', 'w').write('x')\nos.makedirs('d/e')\n"
        "builtins.left = sys.left = 1\ntempfile.mkdtemp()\nimport fcntl\n"
        "fcntl.fcntl(0, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND)\nfcntl.flock(0, fcntl.LOCK_EX)\n"
        "def f(x):\n    return None\n"
    )
    look = (
        "import os, builtins, sys, fcntl\ndef f(x):\n"
        "    fcntl.flock(os.open('/dev/null', os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "    flags = fcntl.fcntl(0, fcntl.F_GETFL) & (os.O_NONBLOCK | os.O_APPEND)\n"
        "    return os.listdir('.') + [hasattr(builtins, 'left'), hasattr(sys, 'left')] + [flags] * bool(flags)\n"
    )
    jobs = [
        Job(leave, "f", calls=[((0,), {}, 0)]),
        Job(look, "f", calls=[((0,), {}, [False, False])]),
    ]
    with Sandbox(num_slots=1, tier=strict_sandbox.tier) as one_slot:
        for _ in range(4):
            one_slot.run(jobs[0])
            verdict = one_slot.run(jobs[1])
            assert verdict.passed, verdict


def test_a_file_that_left_the_times_of_its_directory_as_they_were_is_deleted(tmp_path):
    keeper = scratch.Scratch(str(tmp_path))
    (tmp_path / "left").touch()
    keeper.pristine = keeper._state()  # as where a change within the same tick of the clock is not seen
    assert keeper.clean()
    assert list(tmp_path.iterdir()) == []
    keeper.close()


def test_what_a_killed_judge_leaves_is_swept_at_any_depth():
    left = pathlib.Path(tempfile.gettempdir(), host.slot_name(no_pid := 1 << 23) + "x")
    left.mkdir()
    here = os.getcwd()
    os.chdir(left)
    try:
        for _ in range(1500):
            os.mkdir("d" * 20)
            os.chdir("d" * 20)
    finally:
        os.chdir(here)
    host.sweep(no_pid)
    assert not left.exists()


def test_directories_of_any_depth_cost_no_slot_and_leave_nothing_on_the_host(strict_sandbox):
    deep = "import os\nfor _ in range(3000):\n    os.mkdir('d' * 20, 0o300)\n    os.chdir('d' * 20)\n"
    others = set(descendants())
    with Sandbox(num_slots=1, tier=strict_sandbox.tier) as one_slot:
        assert one_slot.run(adds(1)).passed
        zygotes, judges = [[p for p in helpers(role) if p not in others] for role in ("zygote", "judge")]
        for _ in range(3):
            assert not one_slot.run(Job(deep, "f", calls=[((0,), {}, 0)])).passed
            assert one_slot.run(adds(2)).passed
        assert [pid for pid in helpers("zygote") if pid not in others] == zygotes
    assert left_on_host(judges) == []


def test_answers_of_failed_programs_do_not_stay_with_the_judge():
    test = "def check(candidate):\n    answers = [candidate(0) for _ in range(9)]\n    candidate(1)\n"
    job = Job("def f(x):\n    if x:\n        raise ValueError\n    return 'x' * 1000000\n", "f", test)
    others = set(descendants())
    with Sandbox(num_slots=1) as box:
        assert not box.run(job).passed
        judge = next(pid for pid in helpers("judge") if pid not in others)
        before = resident_kib(judge)
        for _ in range(20):
            box.run(job)
        wait_until(lambda: resident_kib(judge) < before + 8192)


def test_a_limit_on_the_tasks_of_a_user_is_not_set_where_others_count_as_well():
    script = (
        "import resource as r\nfrom sandboxes import Limits, confinement\nbefore = r.getrlimit(r.RLIMIT_NPROC)\n"
        "confinement.set_resource_limits(Limits().as_dict(), None)\nassert r.getrlimit(r.RLIMIT_NPROC) == before\n"
        "confinement.set_resource_limits(Limits().as_dict(), 3)\nassert r.getrlimit(r.RLIMIT_NPROC) == (67, 67)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_killed_judges_and_zygotes_are_replaced_and_the_batch_completes():
    others = set(descendants())
    with Sandbox(num_slots=2) as box:
        jobs = [adds(n) for n in range(150)]
        stop = threading.Event()

        def kill_at_random():
            for role in ("judge", "zygote") * 4:
                stop.wait(0.2)
                for pid in [pid for pid in helpers(role) if pid not in others][:1]:
                    os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill_at_random)
        killer.start()
        try:
            results = []
            while killer.is_alive() or not results:
                results += box.run_batch(jobs)
        finally:
            stop.set()
            killer.join()
        assert [result for result in results if not (isinstance(result, Verdict) and result.passed)] == []
        assert all(result.passed for result in box.run_batch(jobs))


def test_a_program_that_gets_no_cpu_is_unscored_instead_of_too_slow():
    job = Job("def f(x):\n    return sum(range(50_000_000)) and x + 1\n", "f", calls=[((1,), {}, 2)])
    allowed, loads = os.sched_getaffinity(0), []
    os.sched_setaffinity(0, {min(allowed)})
    try:
        with Sandbox(num_slots=1, limits=Limits(wall_seconds=1.0)) as box:
            assert box.run(adds(1)).passed
            command = [sys.executable, "-c", "while True: pass"]
            loads = [subprocess.Popen(command, start_new_session=True) for _ in range(12)]
            time.sleep(0.5)  # they must have begun
            with pytest.raises(SandboxError, match="waited for a CPU"):
                box.run(job)
            assert box.num_unscored == 1
    finally:
        os.sched_setaffinity(0, allowed)
        for load in loads:
            load.kill()
            load.wait()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is only one CPU")
def test_a_slot_keeps_to_one_cpu_while_its_jobs_are_short_and_no_longer():
    def affinities(role: str) -> list[int]:
        return [len(os.sched_getaffinity(pid)) for pid in helpers(role) if pid not in others]

    everywhere, others = len(os.sched_getaffinity(0)), set(descendants())
    with Sandbox(num_slots=1) as box:
        assert box.run(adds(1)).passed
        assert 1 in affinities("zygote")
        slow = Job("import time\ndef f(x):\n    time.sleep(1.5)\n    return x + 1\n", "f", calls=[((1,), {}, 2)])
        thread = threading.Thread(target=box.run, args=(slow,))
        thread.start()
        wait_until(lambda: affinities("worker") == affinities("judge") == [everywhere])
        thread.join()
        for pid in set(helpers("zygote")) - others:
            os.kill(pid, signal.SIGKILL)
        assert box.run(adds(2)).passed
        assert affinities("zygote")[0] == everywhere  # the new one's outermost process inherits the judge's
        wait_until(lambda: box.run(adds(3)).passed and affinities("judge") == [everywhere])


def test_close_leaves_nothing_and_the_sandbox_can_start_again():
    box = Sandbox(num_slots=2)
    before = set(descendants())
    for _ in range(2):
        assert all(result.passed for result in box.run_batch([adds(n) for n in range(8)]))
        judges = [pid for pid in helpers("judge") if pid not in before]
        assert judges
        box.close()
        deadline = time.monotonic() + 5
        while (set(descendants()) - before) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert set(descendants()) <= before
        assert left_on_host(judges) == []


def test_a_killed_trainer_takes_its_helpers_along(tmp_path):
    script = (
        "import os, sys\nfrom sandboxes import Sandbox, Job\n"
        "box = Sandbox(num_slots=2).start()\n"
        "box.run_batch([Job('def f(x): return x', 'f', calls=[((1,), {}, 1)])] * 4)\n"
        "print('ready', flush=True)\nbox.run(Job('import time\\ntime.sleep(60)', 'f', calls=[((1,), {}, 1)]))\n"
    )
    trainer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout.readline() == "ready\n"
    time.sleep(0.3)
    orphans = descendants(trainer.pid)
    assert len(orphans) >= 4
    trainer.kill()
    trainer.wait()
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in orphans) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [pid for pid in orphans if os.path.exists(f"/proc/{pid}")] == []


def test_a_forked_process_does_not_share_slots_with_its_parent(sandbox):
    assert sandbox.run(adds(1)).passed
    pid = os.fork()
    if pid == 0:
        ok = False
        try:
            ok = sandbox.run(adds(2)).passed
            sandbox.close()
        finally:
            os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert sandbox.run(adds(3)).passed


def test_weak_isolation_must_be_asked_for():
    with pytest.raises(SandboxError, match="allow_weak_sandbox"):
        Sandbox(tier="C").start()
    with Sandbox(num_slots=1, tier="C", allow_weak_sandbox=True) as weak:
        assert weak.report.missing
        assert weak.run(adds(1)).passed


def test_probe_names_the_tier_and_a_sandbox_in_use_agrees(sandbox):
    report = probe()
    assert report.tier == sandbox.tier
    assert report.as_dict()["tier"] in "ABC"


@pytest.mark.parametrize(
    "wrong", [{"cpu_seconds": 0}, {"memory_bytes": -1}, {"num_threads": "x"}, {"file_bytes": True}]
)
def test_senseless_limits_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Limits(**wrong)


@pytest.mark.parametrize("arguments", [{}, {"test": TEST, "calls": [((1,), {}, 2)]}, {"calls": []}])
def test_a_job_has_exactly_one_way_to_be_judged(arguments):
    with pytest.raises(ValueError, match=r"Job|exactly"):
        Job(RIGHT, "f", **arguments)
