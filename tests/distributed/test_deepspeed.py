"""The student under DeepSpeed ZeRO-2 and ZeRO-3 equals one process: real `accelerate launch` over gloo, in float32."""

import os
import shutil

import pytest

from rl_distill import distributed
from rl_distill.files import read_jsonl
from rl_distill.ppo import checkpoint
from tests import killable, launched
from tests.ppo.test_two_processes import COMPARED, assert_same_metrics

NAMES = set(COMPARED) - {"grad_norm"}  # DeepSpeed's is that of policy and critic together

SETTINGS = {
    "ppo__max_grad_norm": 1e6,  # DeepSpeed clips policy and critic together, one process clips them apart
    "rewards": "[{fn: task_check, weight: 1.0}, {fn: teacher_likelihood, weight: 5.0}]",
    "anchor__schedule": "fixed",
    "evaluation__load_best": True,
}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one"
    killable.finish(folder, **launched.OPTIONS | SETTINGS)
    return folder


def assert_same_student(folder, expected):
    from transformers import AutoModelForCausalLM

    ours, theirs = (AutoModelForCausalLM.from_pretrained(run / "student").state_dict() for run in (folder, expected))
    assert list(ours) == list(theirs)
    for name, weight in theirs.items():
        assert ours[name].numpy() == pytest.approx(weight.numpy(), abs=1e-4), name


@pytest.mark.parametrize(
    "launch_file",
    [
        pytest.param("zero2", marks=pytest.mark.slow),
        "zero3",
        pytest.param("zero3_offload", marks=pytest.mark.slow),
    ],
)
def test_two_processes_under_deepspeed_train_like_one(launch_file, one, tmp_path):
    (tmp_path / "cache").symlink_to(one.parent / "cache")
    printed = launched.finish(launch_file, 2, tmp_path / "run", **SETTINGS)
    assert printed.count("report: ") == 1
    assert_same_metrics(tmp_path / "run", one, NAMES)
    assert len({record["loss/value"] for record in read_jsonl(one / "metrics.jsonl") if "loss/value" in record}) > 2
    assert [checkpoint.is_complete(path) for path in checkpoint.folders(tmp_path / "run")] == [True, True]
    assert_same_student(tmp_path / "run", one)


@pytest.mark.slow
@pytest.mark.parametrize("launch_file", ["zero2", "zero3"])
def test_a_run_under_deepspeed_resumes_exactly(launch_file, one, tmp_path):
    (tmp_path / "cache").symlink_to(one.parent / "cache")
    launched.finish(launch_file, 2, tmp_path / "run", **SETTINGS)
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoint-8")
    launched.finish(launch_file, 2, tmp_path / "again", **SETTINGS, resume_from_checkpoint="latest")
    for name in ("metrics.jsonl", "student/model.safetensors", "checkpoint-8/model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes(), name


def test_a_launch_that_would_lose_deepspeed_is_refused(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    with pytest.raises(RuntimeError, match="turns DeepSpeed into plain DDP"):
        distributed.start()
