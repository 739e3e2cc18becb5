"""A process that sees several GPUs trains on one: DataParallel would scatter rows and flat token tensors apart."""

import pytest
from torch import nn
from transformers import TrainingArguments

from rl_distill import distributed, hf_training, pipeline
from tests.tiny_run import make_trainer


def with_two_gpus(**settings):
    """Arguments as they come where torch sees two GPUs."""
    arguments = TrainingArguments(**settings)
    assert arguments.n_gpu <= 1
    arguments._n_gpu = 2
    return arguments


def test_the_model_is_never_wrapped_in_data_parallel(tmp_path, monkeypatch):
    monkeypatch.setattr(hf_training, "TrainingArguments", with_two_gpus)
    with pytest.warns(UserWarning, match=r"uses one of 2 GPUs; .*accelerate launch --multi_gpu --num_processes 2"):
        trainer = make_trainer(tmp_path, ppo__num_steps=1)
    pipeline.train(trainer.config, trainer)
    assert trainer.args.n_gpu == 1
    assert not isinstance(trainer.model_wrapped, nn.DataParallel)
    assert any("loss/policy" in record for record in trainer.state.log_history)


def test_a_launch_whose_other_processes_have_the_other_gpus_is_not_warned(tmp_path, monkeypatch, recwarn):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert distributed.on_one_device(with_two_gpus(output_dir=str(tmp_path))).n_gpu == 1
    assert not [item for item in recwarn if "GPUs" in str(item.message)]
