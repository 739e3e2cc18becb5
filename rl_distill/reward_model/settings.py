"""Settings of the trained reward model: a run's settings plus the section `reward_model`.

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
from ..config.ranges import ranged

DEFAULT_REWARDS: tuple[dict[str, Any], ...] = ({"fn": "bleu", "weight": 0.7}, {"fn": "task_check", "weight": 0.3})


@dataclass(frozen=True)
class QualityLimits:
    """Held-out numbers under which the `learned` reward refuses its model; they are stored beside the weights.

    All on outputs of the student alone.
    """

    spearman: float = ranged(0.85, "[-1, 1]")
    """Rank correlation with the blended score, the teacher's output at hand."""
    auc: float = ranged(0.9, "[0, 1]")
    """Of right against wrong answers, the teacher's output at hand."""
    auc_without_teacher: float = ranged(0.8, "[0, 1]")
    """The same where a batch has no teacher output."""
    probe_wins: float = ranged(0.2, "[0, 1]")
    """How often, at most, a built-in cheat may outrank an honest right answer to the same prompt."""


@dataclass(frozen=True)
class RewardModelConfig:
    """The model behind the reward `learned`, its data and its training."""

    objective: Literal["regression", "preference"] = "regression"
    """`regression`: the blended score, and right or wrong beside it. `preference`: pairs, by TRL's RewardTrainer."""
    trunk: str | None = None
    """A folder or hub id of a decoder or encoder; None copies the teacher's trunk."""
    num_train_prompts: int = ranged(6_000, "[1, inf)")
    """Prompts whose answers it learns from."""
    num_heldout_prompts: int = ranged(600, "[1, inf)")
    """Prompts whose answers its quality is measured on."""
    split_seed: int | None = ranged(None, "[0, 4294967295]")
    """Which training prompts of the context are held out; None takes the run's seed."""
    num_student_outputs: int = ranged(2, "[1, inf)")
    """Sampled per prompt from the untrained student, as rollouts are."""
    teacher_dropout: float = ranged(0.3, "[0, 1]")
    """Share of training rows without the teacher's output, so that the model can also score where there is none."""
    teacher_texts: bool = True
    """The teacher writes for each prompt. False: it only scores, and the model never sees a text of it."""
    labelled_only: bool = False
    """Learn from prompts with a gold answer or tests alone, where others have neither."""
    readings: bool = False
    """Read, beside the texts, the candidate's log-probabilities and entropies under the scoring teacher, which PPO's
    anchor computes in any case."""
    readings_dropout: float = ranged(0.1, "[0, 1]")
    """Share of training rows without readings, so that the model can also score where there are none."""
    calibration_share: float = ranged(0.05, "[0, 0.5]")
    """Of the training prompts, not learned from: they say how far off the model is, as `caution` needs. 0: unknown."""
    train_on_probes: bool = False
    """Learn from built-in cheats too, with the scores that the rewards give them."""
    force: bool = False
    """Keep a model that the cheats game, marked in quality.json, in place of ending with an error."""
    correctness_weight: float = ranged(1.0, "[0, inf)")
    """Of the loss on right or wrong beside that on the score."""
    num_steps: int = ranged(800, "[1, inf)")
    """Optimizer steps."""
    batch_size: int = ranged(32, "[1, inf)")
    """Rows (or pairs) per optimizer step, all processes together."""
    learning_rate: float = ranged(5e-3, "(0, inf)")
    """Peak learning rate."""
    warmup_steps: int = ranged(40, "[0, inf)")
    """Steps of linear learning-rate warm-up."""
    max_length: int | None = ranged(None, "[1, inf)")
    """Tokens of teacher's output, prompt and candidate together; None takes what the trunk was made for."""
    quality: QualityLimits = field(default_factory=QualityLimits)
    """What the model must reach."""


@dataclass(frozen=True)
class RewardModelRunConfig(RunConfig):
    """A run's settings with the reward model's."""

    output_dir: str = "runs/reward_model"
    """Folder for everything the run writes."""
    rewards: tuple[dict[str, Any], ...] = DEFAULT_REWARDS
    """The blend that the model learns to predict."""
    reward_model: RewardModelConfig = field(default_factory=RewardModelConfig)
    """The model behind the reward `learned`."""

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


def parse(argv: Sequence[str] | None = None, program: str = "launch/reward_model.py") -> RewardModelRunConfig:
    """The settings from the command line; exits with one clear line on anything wrong."""
    parser = config_parser(
        program,
        "Trains a reward model on the outputs of the teacher and of the untrained student.",
        RewardModelRunConfig,
        "reward_model.yaml",
    )
    return read_config(parser, argv, load_reward_config)
