"""Keeps a trained reward model near the policy: every so many PPO steps it learns from the policy's own new answers.

The rows are the last rollout's completions, scored by the blend the model was trained on, and as many of the rows it
learned from at first, so that it does not forget them. Before it learns, its rank correlation with the blend on the new
answers is logged as `reward_refresh/spearman`: how far the policy has left the model's data.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from reward_models import RewardSpec
from reward_models.audit import spearman
from reward_models.learned import shared_model

from .. import distributed
from ..config import ConfigError, RunConfig
from ..ppo.rollout_building import Rollout
from ..progress import Stages
from ..run_setup import RunContext, teacher_texts
from ..timing import Phases
from .data import make_examples, scored_rows
from .examples import Example
from .quality import predictions
from .settings import RewardModelRunConfig, load_reward_config
from .training import train
from .uncertainty import refit
from .views import views_of


class RewardModelRefresh(TrainerCallback):
    """To be made before the student trains: the model's first rows are made of the untrained student's answers.

    Raises ConfigError where the run has no `learned` reward, or several models, or runs under DeepSpeed.
    """

    def __init__(
        self,
        config: RunConfig,
        context: RunContext,
        updates_per_step: int,
        rollout: Callable[[], Rollout],
        phases: Phases,
    ) -> None:
        assert config.reward_refresh is not None
        if distributed.is_deepspeed():
            raise ConfigError(
                "reward_refresh trains a second model, which DeepSpeed's launch cannot hold; leave it out"
            )
        self.config, self.settings, self.context = config, config.reward_refresh, context
        self.updates_per_step, self.rollout, self.phases = updates_per_step, rollout, phases
        folder, device = learned_model_of(config)
        self.model, self.tokenizer = shared_model(str(folder.resolve()), device)
        self.trained_with = settings_of(folder)
        self.first_rows = make_examples(self.trained_with, context, Stages(quiet=not distributed.is_main()))[0]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        step, rest = divmod(state.global_step, self.updates_per_step)
        if rest == 0 and step % self.settings.every_steps == 0 and step < self.config.ppo.num_steps:
            with self.phases("refresh"):
                self.refresh(step)

    def state_dict(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The reward model as it was at a checkpoint."""
        self.model.load_state_dict(state)

    def refresh(self, step: int) -> None:
        """Trains the model in place, so that the reward function has it at once."""
        fresh = self._fresh_rows()
        found = predictions(self.model, self.tokenizer, fresh, views_of(self.trained_with)[0]).of("student")
        rank = spearman(tuple(found.scores), tuple(example.score for example in found.examples))
        self.rollout().extra_metrics["reward_refresh/spearman"] = rank
        draw = random.Random(f"{self.config.seed}:refresh:{step}")
        old = draw.sample(self.first_rows, min(len(fresh), len(self.first_rows)))
        settings = replace(
            self.trained_with.reward_model,
            num_steps=self.settings.num_steps,
            learning_rate=self.settings.learning_rate,
            warmup_steps=0,
        )
        config = replace(
            self.trained_with, reward_model=settings, seed=draw.getrandbits(31), output_dir=self.config.output_dir
        )
        train(config, self.model, self.tokenizer, fresh + old, progress=False)
        refit(config, self.model, self.tokenizer, self.first_rows + fresh)

    def _fresh_rows(self) -> list[Example]:
        """The last rollout's answers and the teacher's to the same prompts, of all processes, with their scores."""
        rollout, context = self.rollout(), self.context
        teacher: list[str | None] = [None] * len(rollout.problems)
        if self.trained_with.reward_model.teacher_texts:
            texts = teacher_texts(self.trained_with, context.teacher, context.tokenizer, rollout.problems, 1)
            teacher = [several[0] for several in texts]
        student = [(completion.text,) for completion in rollout.completions]
        return distributed.gather_list(scored_rows(self.trained_with, context, rollout.problems, teacher, student))


def learned_model_of(config: RunConfig) -> tuple[Path, str | None]:
    """(folder, device) of the run's one `learned` reward model."""
    specs = [RewardSpec.from_config(entry) for entry in config.rewards]
    models = {(spec.kwargs["model"], spec.kwargs.get("device")) for spec in specs if spec.fn == "learned"}
    if len(models) != 1:
        raise ConfigError(f"reward_refresh needs one model behind the reward `learned`; the rewards name {len(models)}")
    ((folder, device),) = models
    return Path(folder).expanduser(), device


def settings_of(folder: Path) -> RewardModelRunConfig:
    """The settings that launch/reward_model.py trained the folder's model with."""
    path = folder / "results.json"
    if not path.is_file():
        raise ConfigError(f"reward_refresh: {folder} has no results.json, so how its model was trained is not known")
    return load_reward_config(None, json.loads(path.read_text())["config"])
