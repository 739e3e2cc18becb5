"""Settings of what is drawn for training: several sources with their shares, and prompts chosen by what was solved.

Every number has its range beside it and every field its meaning below it. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .ranges import ranged


@dataclass(frozen=True)
class MixtureEntry:
    """One source of training prompts with its share of the prompts that are drawn."""

    train: str | tuple[str, ...] = ""
    """Where its prompts are, as in data.train."""
    task: str = "default"
    """The task of its rows without a `task` column."""
    share: float = ranged(1.0, "(0, inf)")
    """Its share; shares are divided by their sum, so that 7 and 3 mean 70 % and 30 %."""
    name: str = ""
    """What metrics call it; empty takes `task`. No two entries may have one name."""

    anchor_only: bool = False
    """Free text without a check: no reward counts there, its completions feel the anchor alone, and a distillation
    stage learns its divergence alone."""
    part: Literal["task", "general", "domain"] = "task"
    """What it is to a preset of data.mixture_preset; nothing without one."""

    @property
    def label(self) -> str:
        return self.name or self.task


Preset = Literal["task_7_general_3", "domain_30", "domain_40", "domain_50"]
PRESETS: dict[str, tuple[str, float]] = {
    "task_7_general_3": ("general", 0.3),
    "domain_30": ("domain", 0.3),
    "domain_40": ("domain", 0.4),
    "domain_50": ("domain", 0.5),
}
"""Which part of the entries has which share together; all other entries have the rest."""


def mixture_shares(entries: Sequence[MixtureEntry], preset: str | None = None) -> dict[str, float]:
    """By label; they sum to 1. Under a preset the shares of entries say how they divide what their part has."""
    weights = {entry.label: entry.share for entry in entries}
    if preset is not None:
        part, share = PRESETS[preset]
        inside = {entry.label for entry in entries if entry.part == part}
        sums = [sum(w for label, w in weights.items() if (label in inside) is side) for side in (True, False)]
        weights = {
            label: share * w / sums[0] if label in inside else (1 - share) * w / sums[1] for label, w in weights.items()
        }
    total = sum(weights.values())
    return {label: weight / total for label, weight in weights.items()}


@dataclass(frozen=True)
class SamplingConfig:
    """Which training prompts PPO draws. Groups are the entries of data.mixture, or else the tasks."""

    kind: Literal["fixed", "weak_tasks", "learning_progress", "prompt_pools"] = "fixed"
    """`fixed`: by their shares. `weak_tasks`: more of groups far below `target`. `learning_progress`: more of groups
    whose success changes. `prompt_pools`: by what is known of each prompt; what is always right is retired."""
    target: float = ranged(1.0, "(0, 1]")
    """With weak_tasks: the success rate at which a group needs no more than others."""
    temperature: float = ranged(0.25, "(0, inf)")
    """With weak_tasks: weights are exp((target - success) / this); small goes to the weakest alone."""
    floor: float = ranged(0.2, "[0, 1]")
    """With weak_tasks and learning_progress: every group keeps this fraction of its base share; 1 is `fixed`."""
    decay: float = ranged(0.9, "[0, 1)")
    """With weak_tasks: how much the trials of a step still count one step later."""
    window: int = ranged(20, "[1, inf)")
    """With learning_progress: steps of each of the two windows whose success rates are compared."""
    unseen_weight: float = ranged(1.0, "(0, inf)")
    """With prompt_pools: weight of a prompt that was not answered yet."""
    sometimes_weight: float = ranged(1.0, "(0, inf)")
    """With prompt_pools: weight of a prompt with right and wrong answers, and of a re-test that is due."""
    never_weight: float = ranged(0.25, "(0, inf)")
    """With prompt_pools: weight of a prompt without a right answer so far."""
    retire_after: int = ranged(2, "[1, inf)")
    """With prompt_pools: a prompt rests after so many visits in a row with right answers alone."""
    retest_every: int = ranged(50, "[1, inf)")
    """With prompt_pools: steps after which a retired prompt may be drawn again."""
