"""Settings of the trained reward model: those of a run, and one section of its own, `reward_model`.

A reward model belongs to a run's context (teacher, student, problems, rewards), so the run's settings describe it and
it finds the run's cache. Imports without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reward_models import RewardSpec

from ..config import ConfigError, RunConfig, load_config
from ..config.command_line import config_parser, read_config

DEFAULT_REWARDS: tuple[dict[str, Any], ...] = ({"fn": "bleu", "weight": 0.7}, {"fn": "task_check", "weight": 0.3})


@dataclass(frozen=True)
class QualityLimits:
    """Held-out numbers under which the `learned` reward refuses its model; they are stored beside the weights.

    `spearman`: rank correlation with the blended score, `auc`: of right against wrong answers, both with the teacher's
    output at hand; the third holds where a batch has no teacher output. All on outputs of the student alone.
    """

    spearman: float = 0.85
    auc: float = 0.9
    auc_without_teacher: float = 0.8


@dataclass(frozen=True)
class RewardModelConfig:
    """`regression`: the blended score, and right or wrong beside it. `preference`: pairs, by TRL's RewardTrainer."""

    objective: Literal["regression", "preference"] = "regression"
    trunk: str | None = None
    """A folder or hub id of a decoder or encoder; None copies the teacher's trunk."""
    num_train_prompts: int = 6_000
    num_heldout_prompts: int = 600
    split_seed: int | None = None
    """Which training prompts of the context are held out; None takes the run's seed."""
    num_student_outputs: int = 2
    """Sampled per prompt from the untrained student, as rollouts are."""
    teacher_dropout: float = 0.3
    """Share of training rows without the teacher's output, so that the model can also score where there is none."""
    correctness_weight: float = 1.0
    num_steps: int = 800
    batch_size: int = 32
    learning_rate: float = 5e-3
    warmup_steps: int = 40
    max_length: int | None = None
    """Tokens of teacher's output, prompt and candidate together; None takes what the trunk was made for."""
    quality: QualityLimits = field(default_factory=QualityLimits)


@dataclass(frozen=True)
class RewardModelRunConfig(RunConfig):
    """A run's settings with the reward model's. `rewards` is the blend that the model learns to predict."""

    output_dir: str = "runs/reward_model"
    rewards: tuple[dict[str, Any], ...] = DEFAULT_REWARDS
    reward_model: RewardModelConfig = field(default_factory=RewardModelConfig)

    @property
    def split_seed(self) -> int:
        chosen = self.reward_model.split_seed
        return self.seed if chosen is None else chosen


def load_reward_config(path: str | Path | None, overrides: dict[str, Any] | None = None) -> RewardModelRunConfig:
    """The settings of launch/reward_model.py; raises ConfigError as rl_distill.config.load_config does."""
    config = load_config(path, overrides, RewardModelRunConfig)
    _check_reward_model(config)
    return config


def _check_reward_model(config: RewardModelRunConfig) -> None:
    settings = config.reward_model
    for name in ("num_train_prompts", "num_heldout_prompts", "num_student_outputs", "num_steps", "batch_size"):
        if getattr(settings, name) < 1:
            raise ConfigError(f"reward_model.{name} must be at least 1, not {getattr(settings, name)}")
    if not 0 <= settings.teacher_dropout <= 1:
        raise ConfigError(f"reward_model.teacher_dropout is a share between 0 and 1, not {settings.teacher_dropout}")
    if config.teacher.placement != "colocated" or config.teachers or config.teacher.sharded:
        raise ConfigError(
            "launch/reward_model.py copies the trunk of one whole teacher in its own process: set teacher.placement to "
            "colocated, and leave out teachers and teacher.sharded"
        )
    specs = [RewardSpec.from_config(entry) for entry in config.rewards]
    if any(spec.fn == "learned" for spec in specs):
        raise ConfigError("rewards: a reward model cannot learn from `learned`; give it the blend behind it")
    if not any(spec.weight for spec in specs):
        raise ConfigError("rewards: all weights are 0, so there is no score to learn")


def parse(argv: Sequence[str] | None = None) -> RewardModelRunConfig:
    """The settings from the command line; exits with one clear line on anything wrong."""
    parser = config_parser(
        "launch/reward_model.py",
        "Trains a reward model on the outputs of the teacher and of the untrained student.",
        RewardModelRunConfig,
        "reward_model.yaml",
    )
    return read_config(parser, argv, load_reward_config)
