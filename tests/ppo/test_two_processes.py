"""One process = two: real `accelerate launch --num_processes 2` over gloo, in float32."""

import shutil
from collections.abc import Collection
from pathlib import Path

import pytest

from rl_distill import distributed
from rl_distill.files import read_jsonl
from rl_distill.ppo import checkpoint
from tests import killable, launched

COMPARED = ("loss", "kl", "reward", "entropy", "loss/policy", "loss/value", "grad_norm", "explained_variance")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "two"
    return folder, launched.finish("ddp", 2, folder)


def assert_same_metrics(folder: Path, expected: Path, names: Collection[str] = COMPARED) -> None:
    found, wanted = (read_jsonl(run / "metrics.jsonl") for run in (folder, expected))
    assert [record["step"] for record in found] == [record["step"] for record in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        for name in set(names) & set(ours) & set(theirs):
            if theirs[name] is None:  # what is no number is null
                assert ours[name] is None, name
            else:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-5), name


def test_two_processes_train_like_one(two, tmp_path):
    folder, printed = two
    (tmp_path / "cache").symlink_to(folder.parent / "cache")
    killable.finish(tmp_path / "one", **launched.OPTIONS)
    assert_same_metrics(folder, tmp_path / "one")
    assert printed.count("[ppo] done") == 1
    assert printed.count("report: ") == 1
    assert not list((folder.parent / "cache").glob("*.tmp"))


def test_two_processes_leave_complete_checkpoints_and_a_student_that_loads(two):
    from transformers import AutoModelForCausalLM

    folder, _ = two
    assert [checkpoint.is_complete(path) for path in checkpoint.folders(folder)] == [True, True]
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in (folder / "checkpoint-4").iterdir()}
    AutoModelForCausalLM.from_pretrained(folder / "student")
    assert [r["step"] for r in read_jsonl(folder / "metrics.jsonl")] == [1, 2, 2, 3, 4, 4]  # evaluated at 2 and 4


@pytest.mark.slow
def test_two_processes_resume_exactly(two, tmp_path):
    folder, _ = two
    (tmp_path / "cache").symlink_to(folder.parent / "cache")
    shutil.copytree(folder, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoint-8")
    launched.finish("ddp", 2, tmp_path / "again", resume_from_checkpoint="latest")
    assert (tmp_path / "again" / "metrics.jsonl").read_text() == (folder / "metrics.jsonl").read_text()
    names = ("student/model.safetensors", "checkpoint-8/model.safetensors")
    assert all((tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes() for name in names)


def test_processes_that_were_asked_for_and_not_started_are_noticed(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")  # what `accelerate launch --cpu --num_processes 2` sets
    with pytest.raises(RuntimeError, match="asked for several processes on CPU and started one"):
        distributed.start()


def test_a_world_of_another_size_than_launched_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="2 processes were launched, but Accelerate sees 1"):
        distributed.check_world(1)
