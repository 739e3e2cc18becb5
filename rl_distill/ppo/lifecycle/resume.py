"""Resuming under other settings: what may change applies, what may not is refused by name before anything is loaded.

A checkpoint holds the settings it was made with. Whatever shaped its optimizer, its rollouts or its state has to stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ... import distributed
from ...config import ConfigError, RunConfig
from .. import checkpoint

CONFIG = "config"
SAMPLING = "sampling"
"""The name of the sampler's state in a checkpoint."""
OF_ONE_START = ("output_dir", "cache_dir", "resume_from_checkpoint", "dry_run")
MAY_CHANGE = (
    "output_dir",
    "cache_dir",
    "resume_from_checkpoint",
    "chosen",
    "alarms",
    "report_to",
    "push_to_hub",
    "hub_model_id",
    "hub_private_repo",
    "log_completions_every",
    "num_threads",
    "checkpoint",
    "evaluation",
    "distributed",
    "student.gradient_checkpointing",
    "teacher.micro_batch_size",
    "teacher.autocast",
    "teacher.placement",
    "teacher.num_processes",
    "teacher.sharded",
    "teacher.server",
    "generation.batch_size",
    "generation.vllm",
    "anchor.coef",
    "anchor.coef_end",
    "anchor.target_kl",
    "ppo.num_steps",
    "ppo.micro_batch_size",
    "ppo.micro_batch_tokens",
    "ppo.packing",
    "ppo.learning_rate",
    "ppo.value_learning_rate",
    "ppo.final_learning_rate_fraction",
    "ppo.max_grad_norm",
    "ppo.clip_low",
    "ppo.clip_high",
    "ppo.dual_clip",
    "ppo.value_clip",
    "ppo.policy_coef",
    "ppo.value_coef",
    "ppo.entropy_coef",
    "ppo.stop_at_kl",
    "ppo.stop_at_unscored_steps",
)
"""Settings, or sections of them, that a resumed run reads anew at every step or that change no number at all."""
MISSING = object()


def check_resume(config: RunConfig) -> None:
    """Raises ConfigError where the checkpoint is not there, or was made with settings that a run cannot change midway.

    Tells on the main process what differs and applies.
    """
    folder = checkpoint.find(Path(config.output_dir), config.resume_from_checkpoint)
    if folder is None:
        return
    states = checkpoint.read_state(folder)
    saved = states.get(CONFIG)
    if saved is None:  # nothing to compare with
        return
    changes = differences(saved, config.to_dict())
    refused = [words for name, words in changes.items() if not may_change(name)]
    if refused:
        raise ConfigError(
            f"resume_from_checkpoint: {folder} was made with other settings, which cannot change in the middle of a "
            f"run: {', '.join(refused)}. Give those of the checkpoint, or start anew in another output_dir"
        )
    if SAMPLING not in states and draws_by_itself(config):
        raise ConfigError(
            f"resume_from_checkpoint: {folder} was made without sampling.kind and data.mixture and holds no state of "
            "them: leave them out, or start anew in another output_dir"
        )
    if changes and distributed.is_main():
        print(f"resuming with changed settings: {', '.join(changes.values())}", flush=True)


def draws_by_itself(config: RunConfig) -> bool:
    """Whether the run has a sampler with a state of its own (see `make_sampler`)."""
    return config.sampling.kind != "fixed" or bool(config.data.mixture)


def differences(saved: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, str]:
    """By dotted name, how a setting of the checkpoint differs, such as `ppo.batch_size (8 -> 16)`.

    Settings that the checkpoint does not know (a newer version has more) are left out.
    """
    before, now = dict(flat(saved)), dict(flat(present))
    changed = [name for name in before if before[name] != now.get(name, MISSING)]
    return {name: f"{name} ({before[name]!r} -> {now.get(name, _section(present, name))!r})" for name in changed}


def _section(settings: Mapping[str, Any], name: str) -> Any:
    """What stands at a dotted name, a whole section too; None where nothing does."""
    value: Any = settings
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every setting; lists stay whole."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def may_change(name: str) -> bool:
    return any(name == allowed or name.startswith(f"{allowed}.") for allowed in MAY_CHANGE)


class PresentSettings(TrainerCallback):
    """Lets a resumed run follow its present settings where Trainer takes those of the checkpoint: how often it saves
    and evaluates, and the learning rates, which the optimizer and its schedule have stored.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.saved: Mapping[str, Any] | None = None
        """The checkpoint's settings, where the run is resumed."""

    def state_dict(self) -> dict[str, Any]:
        """The settings themselves, without where the run is written and whether it was resumed."""
        return {name: value for name, value in self.config.to_dict().items() if name not in OF_ONE_START}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.saved = state

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, lr_scheduler: Any = None, **kwargs: Any
    ) -> None:
        state.save_steps, state.eval_steps, state.logging_steps = args.save_steps, args.eval_steps, args.logging_steps
        if self.saved is None:
            return
        before, now = self.saved["ppo"], self.config.ppo
        factors = [now.learning_rate / before["learning_rate"]] * len(optimizer.param_groups)
        if now.advantage == "gae":  # the last group is the critic's
            factors[-1] = now.value_learning_rate / before["value_learning_rate"]
        scale_learning_rates(optimizer, lr_scheduler, factors)


def scale_learning_rates(optimizer: Any, lr_scheduler: Any, factors: list[float]) -> None:
    """Multiplies the learning rate of each parameter group, now and for all that the schedule has yet to come."""
    schedule = getattr(lr_scheduler, "scheduler", lr_scheduler)  # Accelerate wraps it
    if all(factor == 1.0 for factor in factors):
        return
    for group, factor in zip(optimizer.param_groups, factors, strict=True):
        group["lr"] *= factor
        group["initial_lr"] = group.get("initial_lr", group["lr"]) * factor
    schedule.base_lrs = [rate * factor for rate, factor in zip(schedule.base_lrs, factors, strict=True)]
