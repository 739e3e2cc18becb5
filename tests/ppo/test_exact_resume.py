"""A run killed by SIGKILL and resumed, again and again, ends as one never killed: same weights, same metrics."""

import random
import time
from pathlib import Path

import pytest
import torch

from rl_distill.files import read_jsonl
from rl_distill.ppo import checkpoint
from tests import killable

MAX_SECONDS = 900


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unkilled"
    killable.finish(folder)
    return folder


def newest(folder: Path) -> int:
    return max((int(path.name.rpartition("-")[2]) for path in checkpoint.folders(folder)), default=0)


def kill_while_saving(process, folder: Path, draw: random.Random) -> bool:
    """Kills soon after the next checkpoint folder appears; True where that left it half-written."""
    before, deadline = newest(folder), time.monotonic() + MAX_SECONDS
    while newest(folder) == before and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.0005)
    time.sleep(draw.choice([0.0, 0.001, 0.003, 0.01, 0.02]))
    killable.kill(process)
    half_written = [path for path in checkpoint.folders(folder) if not checkpoint.is_complete(path)]
    return bool(half_written)


def kill_after_a_record(process, folder: Path, draw: random.Random) -> bool:
    """Kills at a random moment after the next one to three records of metrics.jsonl."""
    path, deadline = folder / "metrics.jsonl", time.monotonic() + MAX_SECONDS
    wanted = len(read_jsonl(path)) + draw.randint(1, 3)
    while len(read_jsonl(path)) < wanted and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(draw.random() * 0.15)
    killable.kill(process)
    return any(not checkpoint.is_complete(path) for path in checkpoint.folders(folder))


def assert_same_run(folder: Path, expected: Path) -> None:
    assert (folder / "metrics.jsonl").read_text() == (expected / "metrics.jsonl").read_text()
    for name in ("student/model.safetensors", "checkpoint-16/model.safetensors", "checkpoint-16/run_state.json"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    states = [torch.load(run / "checkpoint-16" / "optimizer.pt")["state"] for run in (folder, expected)]
    for key, moments in states[1].items():
        assert all(torch.equal(states[0][key][name], value) for name, value in moments.items()), key


def killed_run(folder: Path, num_kills: int, seed: int) -> tuple[int, int]:
    """(kills that hit a running process, those that left a half-written checkpoint) of a run resumed to its end."""
    draw, hits, half_written = random.Random(seed), 0, 0
    for number in range(num_kills):
        process = killable.start(folder, resume_from_checkpoint="latest")
        kill = kill_while_saving if number % 2 else kill_after_a_record
        half_written += kill(process, folder, draw)
        hits += process.exitcode == -9
    killable.finish(folder, resume_from_checkpoint="latest")
    return hits, half_written


def test_a_run_killed_twice_ends_like_one_never_killed(tmp_path, unkilled):
    (tmp_path / "cache").symlink_to(unkilled.parent / "cache")
    hits, _ = killed_run(tmp_path / "killed", 2, seed=0)
    assert hits == 2
    assert_same_run(tmp_path / "killed", unkilled)


@pytest.mark.slow
def test_twenty_random_kills_change_nothing(tmp_path, unkilled):
    (tmp_path / "cache").symlink_to(unkilled.parent / "cache")
    hits = half_written = 0
    for run in range(20):
        found = killed_run(tmp_path / f"killed-{run}", 3, seed=run + 1)
        hits, half_written = hits + found[0], half_written + found[1]
        assert_same_run(tmp_path / f"killed-{run}", unkilled)
        if hits >= 20 and half_written >= 3:
            break
    assert hits >= 20
    assert half_written >= 3
