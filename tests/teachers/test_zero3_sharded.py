"""A teacher whose weights are shared out over processes is the whole teacher: real DeepSpeed ZeRO-3 over gloo."""

import os
import subprocess
import sys

import pytest

from rl_distill.config import ConfigError, load_config
from rl_distill.teachers.loading import load_teacher
from tests import killable, launched, own_models
from tests.distributed.test_deepspeed import NAMES
from tests.ppo.test_two_processes import assert_same_metrics


@pytest.mark.slow
def test_two_processes_with_half_a_teacher_each_say_what_the_whole_says():
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, "-m", "tests.sharded_weights"],
        cwd=killable.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("agrees") == 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("models"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launch_file", "num_processes", "changes"),
    [
        ("zero3", 2, {}),
        ("fsdp2", 2, {}),
        ("ddp", 3, {"teacher__placement": "dedicated", "teacher__num_processes": 2}),
    ],
)
def test_a_run_under_a_sharded_teacher_is_that_under_a_whole_one(launch_file, num_processes, changes, folder, tmp_path):
    settings = own_models.options(
        folder, teacher__model=folder / "large", ppo__batch_size=7, ppo__num_minibatches=1, ppo__max_grad_norm=1e6
    )
    killable.finish(tmp_path / "whole", **launched.OPTIONS | settings)
    launched.finish(launch_file, num_processes, tmp_path / "sharded", **settings, teacher__sharded=True, **changes)
    assert_same_metrics(tmp_path / "sharded", tmp_path / "whole", NAMES)


def test_one_process_has_nobody_to_share_a_teacher_with(folder, tmp_path):
    config = own_models.config(folder, tmp_path, teacher__model=str(folder / "large"), teacher__sharded=True)
    with pytest.raises(ConfigError, match="over processes, and there is one"):
        load_teacher(config, str(folder / "large"), "float32", None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward_refresh": {}}, "leave reward_refresh out"),
        ({"teacher.placement": "dedicated"}, "set teacher.num_processes to 2 or more"),
        ({"teacher.placement": "remote", "teacher.server.base_url": "http://x/v1"}, "the server shards by itself"),
    ],
)
def test_a_teacher_that_cannot_be_sharded_is_refused(settings, message):
    own = {"demo": None, "student.model": "s", "teacher.model": "t", "data.train": "d", "teacher.sharded": True}
    with pytest.raises(ConfigError, match=message):
        load_config(None, own | settings)
