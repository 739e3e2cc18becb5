"""One process dies, stops, hangs or fails: all end in time, and one message names the rank and the reason."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 8
LAUNCHER_S = 40
"""The launcher gives a process 30 s to leave."""


def launch(trouble: str, num_processes: int = 2, num_teachers: int = 0) -> tuple[int, str, float]:
    """(exit code, what was printed, seconds from the trouble to the end) of a launch of tests/watched_launch.py."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    command += ["-m", "tests.watched_launch", trouble, str(num_teachers), str(TIMEOUT_S)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    printed, ended = done.stdout + done.stderr, time.time()
    return done.returncode, printed, ended - float(printed.partition("trouble at ")[2].split()[0])


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("dies", "rank 1 died (its process on"),
        ("fails", "rank 1 failed: ValueError: no such luck"),
        pytest.param("hangs", "stuck kept the others waiting: rank 0 has waited", marks=pytest.mark.slow),
        pytest.param("stops", "rank 1 gave no sign of life for", marks=pytest.mark.slow),
    ],
)
def test_trouble_in_one_process_ends_all_with_one_message(trouble, reason):
    code, printed, seconds = launch(trouble)
    assert code != 0
    assert reason in printed
    assert printed.count("Every process ends") == 1
    assert printed.count("Traceback (most recent call last)") <= 1 + (trouble == "fails")  # the launcher has one
    assert seconds < LAUNCHER_S + TIMEOUT_S


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("dies", "rank 1 (teacher 0) died (its process on"),
        pytest.param("hangs", "rank 1 (teacher 0) at", marks=pytest.mark.slow),
    ],
)
def test_trouble_of_the_teacher_ends_the_students_too(trouble, reason):
    code, printed, seconds = launch(trouble, num_teachers=1)
    assert code != 0
    assert reason in printed
    assert printed.count("Every process ends") == 1
    assert seconds < LAUNCHER_S + TIMEOUT_S


def test_processes_that_do_their_work_end_without_a_word():
    code, printed, _ = launch("nothing")
    assert code == 0, printed
    assert "Every process ends" not in printed
    assert printed.count("is done") == 2
