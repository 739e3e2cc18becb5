"""A reward model refreshed during PPO learns from the policy's answers, is in the checkpoint, and resumes exactly."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reward_models import learned as learned_module
from reward_models.learned import QUALITY_FILE
from rl_distill import pipeline
from rl_distill.config import ConfigError
from rl_distill.files import read_jsonl
from rl_distill.reward_model.settings import load_reward_config
from rl_distill.reward_model.training import make_reward_model
from tests.reward_model.test_training import REWARDS, quality
from tests.tiny_run import SETTINGS, make_config, make_context, make_trainer


@pytest.fixture
def reward_model(tmp_path):
    """The folder of a reward model with untrained heads, and the settings it would be trained with."""
    folder = tmp_path / "reward_model"
    small = {"num_train_prompts": 10, "num_heldout_prompts": 6, "batch_size": 4}
    section = {f"reward_model.{name}": value for name, value in small.items()}
    config = load_reward_config(None, SETTINGS | {"output_dir": str(folder), "rewards": REWARDS} | section)
    model, tokenizer = make_reward_model(config, make_context(config))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / QUALITY_FILE).write_text(json.dumps(quality()))
    (folder / "results.json").write_text(json.dumps({"config": config.to_dict()}))
    return folder


def start(folder: Path, model: Path, **settings):
    """A trainer as a new process has it: with the reward model as it lies on disk."""
    learned_module._load_once.cache_clear()
    rewards = [{"fn": "task_check", "weight": 0.5}, {"fn": "learned", "weight": 0.5, "kwargs": {"model": str(model)}}]
    refresh = {"every_steps": 1, "num_steps": 3, "learning_rate": 3e-3}
    wanted = {"rewards": rewards, "reward_refresh": refresh, "checkpoint__every_steps": 2, "ppo__num_steps": 4}
    return make_trainer(folder, **(wanted | settings))


def run(trainer):
    pipeline.train(trainer.config, trainer)
    return {name: value.clone() for name, value in trainer.parts.parts["reward_model"].model.state_dict().items()}


def test_a_refresh_lowers_the_models_loss_on_the_policys_answers(tmp_path, reward_model):
    trainer = start(tmp_path / "run", reward_model)
    refresh = trainer.parts.parts["reward_model"]
    trainer.collector.collect(trainer.actor_critic, 0)
    rows = refresh._fresh_rows()
    refresh.settings = replace(refresh.settings, num_steps=30)

    def distance():
        from rl_distill.reward_model.quality import predictions
        from rl_distill.reward_model.views import View

        found = predictions(refresh.model, refresh.tokenizer, rows, View("with_teacher", True, False))
        return sum(abs(score - row.score) for score, row in zip(found.scores, rows, strict=True)) / len(rows)

    before = distance()
    refresh.refresh(1)
    assert distance() < 0.7 * before


def test_the_refreshed_model_is_in_the_checkpoint_and_a_resumed_run_is_the_same(tmp_path, reward_model):
    whole = run(start(tmp_path / "whole", reward_model))
    saved = torch.load(tmp_path / "whole" / "checkpoint-8" / "reward_model.pt")
    assert all(torch.equal(saved[name], value) for name, value in whole.items())
    records = read_jsonl(tmp_path / "whole" / "metrics.jsonl")
    assert "reward_refresh/spearman" in records[0]

    first = tmp_path / "whole" / "checkpoint-4"
    resumed = start(tmp_path / "resumed", reward_model, resume_from_checkpoint=str(first))
    again = run(resumed)
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    for name, value in torch.load(first / "reward_model.pt").items():
        if name.endswith("head.weight"):
            assert not torch.equal(value, whole[name])


def test_a_refresh_without_a_learned_reward_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="one model behind the reward `learned`; the rewards name 0"):
        make_trainer(tmp_path, reward_refresh={"every_steps": 1})
    with pytest.raises(ConfigError, match="must be at least 1"):
        make_config(tmp_path, reward_refresh={"every_steps": 0})
