"""A run that is killed or asked to leave goes on as if nothing had happened: real launches, real signals."""

import os
import signal
import time

import psutil
import pytest

from rl_distill.files import read_jsonl
from rl_distill.ppo import checkpoint
from tests import killable, launched, own_models

STEPS = {"ppo__num_steps": 5, "teacher__autocast": "off", "evaluation__every_steps": 2}
SPLIT = {"teacher__placement": "dedicated", "checkpoint__every_steps": 1}
NEVER_SAVES = {"checkpoint__every_steps": 100}
MAX_SECONDS = 900


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = own_models.write(tmp_path_factory.mktemp("models"))
    return own_models.options(folder, teacher__model=folder / "large", **STEPS)


def wait_for_records(folder, number):
    """Until metrics.jsonl has more than `number` records."""
    deadline = time.monotonic() + MAX_SECONDS
    while len(read_jsonl(folder / "metrics.jsonl")) <= number and time.monotonic() < deadline:
        time.sleep(0.05)
    assert time.monotonic() < deadline, folder.with_suffix(".log").read_text()[-3000:]


def process_of_rank(launcher, rank):
    """The process of a rank of the launch, which the launcher started."""
    for process in psutil.Process(launcher.pid).children(recursive=True):
        if "launch/ppo.py" in process.cmdline() and process.environ().get("RANK") == str(rank):
            return process
    raise AssertionError(f"no process of rank {rank}")


def assert_same_run(folder, expected):
    assert (folder / "metrics.jsonl").read_text() == (expected / "metrics.jsonl").read_text()
    name = "student/model.safetensors"
    assert (folder / name).read_bytes() == (expected / name).read_bytes()


@pytest.mark.slow
def test_a_run_with_a_split_teacher_outlives_the_death_of_either_side(settings, tmp_path):
    settings = settings | SPLIT
    launched.finish("ddp", 2, tmp_path / "whole", **settings)
    folder = tmp_path / "killed"
    for rank, words in ((1, "rank 1 (teacher 0) died"), (0, "rank 0")):
        launcher = launched.start("ddp", 2, folder, **settings, resume_from_checkpoint="latest")
        wait_for_records(folder, len(read_jsonl(folder / "metrics.jsonl")))
        process_of_rank(launcher, rank).kill()
        assert launcher.wait(MAX_SECONDS) != 0
        assert words in folder.with_suffix(".log").read_text()
        assert checkpoint.find(folder, "latest") is not None
    launched.finish("ddp", 2, folder, **settings, resume_from_checkpoint="latest")
    assert_same_run(folder, tmp_path / "whole")


def check_left_with_a_checkpoint(folder):
    assert "SIGTERM: saved after step" in folder.with_suffix(".log").read_text()
    assert not (folder / "results.json").exists()
    (saved,) = checkpoint.folders(folder)
    assert checkpoint.is_complete(saved)
    assert 0 < int(saved.name.rpartition("-")[2]) < 5 * 2  # before the last step


@pytest.mark.slow
def test_sigterm_to_a_single_process_saves_and_the_run_goes_on(settings, tmp_path):
    settings = settings | NEVER_SAVES
    killable.finish(tmp_path / "whole", **settings)
    folder = tmp_path / "asked"
    process = killable.start(folder, **settings)
    wait_for_records(folder, 0)
    os.kill(process.pid, signal.SIGTERM)
    process.join(MAX_SECONDS)
    assert process.exitcode == 0
    check_left_with_a_checkpoint(folder)
    killable.finish(folder, **settings, resume_from_checkpoint="latest")
    assert_same_run(folder, tmp_path / "whole")


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_saves_and_the_run_goes_on(settings, tmp_path):
    settings = settings | NEVER_SAVES
    launched.finish("ddp", 2, tmp_path / "whole", **settings)
    folder = tmp_path / "asked"
    launcher = launched.start("ddp", 2, folder, **settings)
    wait_for_records(folder, 0)
    process_of_rank(launcher, 1).terminate()
    assert launcher.wait(MAX_SECONDS) == 0
    check_left_with_a_checkpoint(folder)
    launched.finish("ddp", 2, folder, **settings, resume_from_checkpoint="latest")
    assert_same_run(folder, tmp_path / "whole")
