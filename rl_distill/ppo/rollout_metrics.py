"""The numbers of one rollout, over all processes: what a training record says about it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import distributed
from ..maths.advantages import explained_variance
from ..maths.masking import moments
from ..types import Finish
from .coefficients import Coefficient
from .rollout import successes
from .rollout_building import Rollout


@torch.no_grad()
def rollout_metrics(rollout: Rollout, coefficient: Coefficient) -> dict[str, float]:
    """The numbers of one rollout, over all processes."""
    reduce = distributed.sum_over_processes

    def mean(x: Tensor) -> float:
        return float(moments(x, torch.ones_like(x, dtype=torch.bool), reduce)[0])

    states = rollout.states
    cut_B = torch.tensor([float(c.finish is Finish.LENGTH) for c in rollout.completions])
    totals_B = torch.tensor([math.nan if s is None else s for s in rollout.scores.total])
    total_mean, total_variance, _ = moments(totals_B, ~totals_B.isnan(), reduce)
    explained = explained_variance(rollout.returns_N, states.values_N, rollout.trained_N, reduce)
    return {
        "reward": float(total_mean),
        "reward_std": float(total_variance.sqrt()),
        **reward_metrics(rollout),
        **success_by_task(rollout),
        "kl": mean(states.kl_N),
        "entropy": mean(states.entropy_N),
        "explained_variance": float(explained),
        "completions/mean_length": mean(torch.tensor(rollout.lengths).float()),
        "completions/cut_by_length": mean(cut_B),
        "completions/trained_on": mean(rollout.trained_B.float()),
        **coefficient.metrics(),
        **rollout.extra_metrics,
    }


def reward_metrics(rollout: Rollout) -> dict[str, float]:
    """What the reward functions say of the rollout: means over processes weighted by their rows, as a function counts
    its errors and logs its own numbers where it runs. Without their seconds, which differ from run to run.
    """
    mine = {name: value for name, value in rollout.scores.metrics.items() if not name.endswith("/seconds")}
    parts = distributed.gather_list([(len(rollout.completions), mine)])
    if len(parts) == 1:
        return mine
    metrics = {}
    for name in dict.fromkeys(name for _, several in parts for name in several):
        told = [(rows, several[name]) for rows, several in parts if name in several]
        metrics[name] = sum(rows * value for rows, value in told) / sum(rows for rows, _ in told)
    return metrics


def success_by_task(rollout: Rollout) -> dict[str, float]:
    """The verified share of right completions per task, over all processes."""
    tasks = distributed.gather_list([problem.task for problem in rollout.problems])
    values = distributed.gather_list(successes(rollout.scores))
    by_task: dict[str, list[float]] = {}
    for task, value in zip(tasks, values, strict=True):
        if value is not None:
            by_task.setdefault(task, []).append(value)
    return {f"success/{task}": sum(v) / len(v) for task, v in sorted(by_task.items())}
