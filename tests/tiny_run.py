"""A whole PPO run small enough for a test: random tiny models, demo problems, real rewards and sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rl_distill import pipeline
from rl_distill.config import RunConfig, TinyModelConfig, load_config
from rl_distill.demo.problems import make_problems
from rl_distill.demo.tiny import make_model, make_tokenizer
from rl_distill.ppo.coefficients import SuccessCount
from rl_distill.ppo.trainer import PPOTrainer
from rl_distill.run_setup import RunContext
from rl_distill.teachers.colocated import make_teacher
from rl_distill.types import Splits

SETTINGS: dict[str, Any] = {
    "ppo.num_steps": 3,
    "ppo.batch_size": 8,
    "ppo.num_minibatches": 2,
    "ppo.micro_batch_size": 4,
    "ppo.critic_warmup_steps": 0,
    "ppo.warmup_steps": 0,
    "generation.max_completion_length": 12,
    "evaluation.every_steps": 1000,
    "report_to": [],
    "rewards": [{"fn": "task_check", "weight": 1.0}, {"fn": "teacher_likelihood", "weight": 0.5}],
}


def make_config(output_dir: Path, **settings: Any) -> RunConfig:
    """The test's settings under overrides, whose dots are written as double underscores: ppo__num_steps=4."""
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    return load_config(None, SETTINGS | {"output_dir": str(output_dir)} | dotted)


def make_context(config: RunConfig) -> RunContext:
    train = make_problems("train", 40, 0)
    tokenizer = make_tokenizer([p.prompt + p.solution for p in train], 320)
    teacher = make_model(TinyModelConfig(48, 64, 2, 4), tokenizer, 1)
    student = make_model(TinyModelConfig(32, 64, 2, 4), tokenizer, 2)
    splits = Splits(cold_start=[], train=train, validation=make_problems("validation", 6, 0), test=train[:4])
    rates = {"math": SuccessCount(20, 40), "code": SuccessCount(20, 40)}
    return RunContext(splits, make_teacher(config, teacher, tokenizer), student, tokenizer, rates, 0)


def make_trainer(output_dir: Path, **settings: Any) -> PPOTrainer:
    config = make_config(output_dir, **settings)
    return pipeline.make_trainer(config, make_context(config))


def weights(trainer: PPOTrainer) -> dict[str, Any]:
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
