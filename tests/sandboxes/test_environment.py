"""What programs and tests may use: packages and what they need, processes, locks; and what is left behind by kills."""

import fcntl
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest
from sandbox_helpers import helpers, wait_until

from sandboxes import Job, JobError, Limits, Outcome, Sandbox, packages

RIGHT = "def f(x):\n    return x + 1\n"


def test_tests_may_use_numpy_where_it_is_installed(sandbox):
    pytest.importorskip("numpy")
    test = (
        "import numpy as np\ndef check(c):\n    assert np.allclose(c(1.0), 2 + 1e-12)\n    assert np.sum(c(2)) == 3\n"
    )
    assert sandbox.run(Job(RIGHT, "f", test)).passed
    assert sandbox.run(Job("import numpy\n" + RIGHT, "f", test)).outcome is Outcome.LOAD_ERROR


def test_a_test_that_needs_more_is_an_error_that_says_what_to_do(sandbox):
    with pytest.raises(JobError, match="test_packages"):
        sandbox.run(Job(RIGHT, "f", "import torch\nassert f(1) == 2\n"))
    with Sandbox(num_slots=1, test_packages=()) as bare, pytest.raises(JobError, match="numpy"):
        bare.run(Job(RIGHT, "f", "import numpy\nassert f(1) == 2\n"))


USES = {
    "sympy": ("import sympy\ndef f(n):\n    return str(sympy.factor(sympy.Symbol('x') ** 2 - 1))\n",
              "assert f(1) == '(x - 1)*(x + 1)'\n"),
    "pandas": ("import pandas\ndef f(n):\n    return pandas.DataFrame({'a': [1, n]}).a.sum()\n", "assert f(2) == 3\n"),
    "numpy": ("import numpy\ndef f(n):\n    return numpy.arange(n)\n",
              "import numpy\nassert (f(3) == numpy.arange(3)).all()\nassert f(3).shape == (3,)\n"),
}  # fmt: skip


@pytest.mark.parametrize("tier", ["A", "B"])
@pytest.mark.parametrize("name", USES)
def test_packages_bring_what_they_depend_on_and_the_tier_is_told(name, tier, caplog):
    pytest.importorskip(name)
    source, test = USES[name]
    with caplog.at_level("INFO", "sandboxes"), Sandbox(num_slots=1, packages=(name,), tier=tier) as box:
        verdict = box.run(Job(source, "f", test))
        assert verdict.passed, verdict
        assert box.report.refused == {}
        assert not box.run(Job("import torch\n" + source, "f", test)).passed
    assert f"tier {tier} (local); programs may import {name}" in caplog.text


def test_packages_are_found_with_their_requirements():
    pytest.importorskip("pandas")
    assert {"pandas", "numpy", "dateutil", "tzdata"} <= set(packages.locate(["pandas"]))
    assert "six.py" in packages.locate(["six"])
    with pytest.raises(ValueError, match="no_such_package"):
        packages.locate(["no_such_package"])
    assert packages.locate(["no_such_package"], optional=True) == {}


PROCESSES = """
import multiprocessing as mp
from concurrent.futures import ProcessPoolExecutor
def square(x):
    return x * x
def child(queue, n):
    queue.put(n + 1)
def f(kind, n):
    if kind == "queue":
        queue = mp.Queue()
        process = mp.Process(target=child, args=(queue, n))
        process.start()
        return queue.get(), process.join()
    if kind == "pool":
        with mp.Pool(2) as pool:
            return pool.map(square, range(n))
    if kind == "executor":
        with ProcessPoolExecutor(2) as pool:
            return list(pool.map(square, range(n)))
    value = mp.Value("i", 0)
    process = mp.Process(target=lambda: setattr(value, "value", n))
    process.start()
    process.join()
    return value.value
"""


def test_child_processes_may_be_the_default_with_queues_pools_and_shared_values(sandbox):
    if sandbox.tier != "A":
        pytest.skip("tier A only")
    test = (
        "assert f('queue', 1) == (2, None)\nassert f('pool', 4) == [0, 1, 4, 9]\n"
        "assert f('executor', 4) == [0, 1, 4, 9]\nassert f('value', 5) == 5\n"
    )
    with Sandbox(num_slots=1, limits=Limits(num_processes=4)) as box:
        assert (box.report.tier, box.report.missing) == ("A", ())
        assert box.run(Job(PROCESSES, "f", test)).passed
        left = box.run(Job("import os\ndef f(x):\n    return os.listdir('/dev/shm')\n", "f", "assert f(1) == []\n"))
        assert left.passed, left
        for victim in ("1", "os.getppid()", "-1", "0"):
            kill = f"import os\ndef f(x):\n    os.kill({victim}, 9)\n    return x + 1\n"
            assert not box.run(Job(kill, "f", "assert f(1) == 2\n")).passed
        child = (
            "import os, time\ndef f(x):\n    parent = os.getpid()\n    if os.fork() == 0:\n        os.kill(parent, 9)\n"
            "        os._exit(0)\n    time.sleep(0.2)\n    return x + 1\n"
        )
        assert box.run(Job(child, "f", "assert f(1) == 2\n")).passed  # the child dies of the attempt


def test_locks_on_files_that_others_see_as_well_are_only_pretended():
    lock = (
        "import fcntl, os, time\ndef f(x):\n    file = os.open(os.__file__, os.O_RDONLY)\n"
        "    fcntl.flock(file, fcntl.LOCK_EX)\n    fcntl.lockf(file, fcntl.LOCK_SH)\n    time.sleep(x)\n    return x\n"
    )
    look = (
        "import fcntl, os\ndef f(x):\n    file = os.open(os.__file__, os.O_RDONLY)\n"
        "    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n    return x\n"
    )
    with Sandbox(num_slots=2) as box:
        jobs = [Job(lock, "f", "assert f(1) == 1\n"), Job(look, "f", "assert f(2) == 2\n")]
        assert all(result.passed for result in box.run_batch(jobs))
    with open(os.__file__) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_endless_loops_that_starve_each_other_are_timeouts():
    num_slots = 8 * len(os.sched_getaffinity(0))
    limits = Limits(cpu_seconds=0.3, wall_seconds=1.0)
    with Sandbox(num_slots=num_slots, limits=limits) as box:
        results = box.run_batch(
            [Job("def f(x):\n    while True:\n        pass\n", "f", "assert f(1) == 1\n")] * num_slots
        )
    assert {getattr(result, "outcome", result) for result in results} <= {Outcome.TIMEOUT_CPU, Outcome.TIMEOUT_WALL}
    assert box.num_unscored == 0


def test_a_folder_left_by_a_kill_of_trainer_and_judge_is_swept_by_the_next():
    script = (
        "from sandboxes import Sandbox, Job\nbox = Sandbox(num_slots=1, tier='B').start()\nprint('ready', flush=True)\n"
        "box.run(Job('open(\"left\", \"w\").close()\\nimport time\\ntime.sleep(60)', 'f', calls=[((1,), {}, 1)]))\n"
    )
    trainer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout.readline() == "ready\n"
    folders = [
        p
        for p in pathlib.Path(tempfile.gettempdir()).glob("sandbox-*")
        if parent(int(p.name.split("-")[1])) == trainer.pid
    ]
    assert len(folders) == 1
    judge = int(folders[0].name.split("-")[1])
    trainer.kill()
    os.kill(judge, signal.SIGKILL)
    trainer.wait()
    wait_until(lambda: not pathlib.Path(f"/proc/{judge}").exists())
    with Sandbox(num_slots=1, tier="B") as box:
        assert not folders[0].exists()
        own = helpers("judge")
        assert any(
            path.name.split("-")[1] in map(str, own) for path in pathlib.Path(tempfile.gettempdir()).glob("sandbox-*")
        )
        assert box.run(Job(RIGHT, "f", "assert f(1) == 2\n")).passed


def parent(pid: int) -> int:
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except OSError:
        return 0


ZOMBIES = """
import os, signal, time
from sandboxes import Job, Sandbox
assert os.getpid() == 1
job = Job("def f(x): return x", "f", calls=[((1,), {}, 1)])
for tier in ("A", "B"):
    box = Sandbox(num_slots=1, tier=tier).start()
    for _ in range(3):
        assert box.run(job).passed
        for slot in list(box._slots):
            os.kill(slot.process.pid, signal.SIGKILL)
    box.close()
time.sleep(0.3)
states = [open(f"/proc/{n}/stat").read().rpartition(")")[2].split()[0] for n in os.listdir("/proc") if n.isdigit()]
print(states.count("Z"), "zombies")
"""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs a pid namespace")
def test_a_trainer_that_is_process_1_keeps_no_zombies():
    command = ["unshare", "-pf", "--mount-proc", sys.executable, "-c", ZOMBIES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "unshare" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout == "0 zombies\n", done.stderr
