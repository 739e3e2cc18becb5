"""The numbers of one rollout, over all processes: what a training record says about it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import distributed
from ..maths.advantages import explained_variance
from ..maths.masking import moments
from ..types import Finish
from .coefficients import Coefficient
from .rollout import successes
from .rollout_building import Rollout

NGRAM = 4
"""Tokens of the sequences whose repetition is counted."""


@torch.no_grad()
def rollout_metrics(rollout: Rollout, coefficient: Coefficient, group_size: int = 1) -> dict[str, float]:
    """The numbers of one rollout of `group_size` completions per prompt, over all processes."""
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
        "completions/repeated": mean(torch.tensor([repeated(c.token_ids) for c in rollout.completions])),
        "groups/with_signal": groups_with_signal(rollout, group_size),
        **coefficient.metrics(),
        **rollout.extra_metrics,
    }


def repeated(token_ids: Sequence[int]) -> float:
    """The share of the n-grams of a completion that occur in it before; 0 where it is shorter than one."""
    grams = [tuple(token_ids[i : i + NGRAM]) for i in range(len(token_ids) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def groups_with_signal(rollout: Rollout, group_size: int) -> float:
    """The share of prompts whose trained completions differ in their scores, over all processes; with one completion
    per prompt all are one group. NaN where nothing was scored.
    """
    rows = zip(rollout.problems, rollout.scores.total, rollout.trained_B.tolist(), strict=True)
    mine = [(problem.key if group_size > 1 else "", score) for problem, score, trained in rows if trained]
    groups: dict[str, set[float]] = {}
    for key, score in distributed.gather_list(mine):
        if score is not None:
            groups.setdefault(key, set()).add(score)
    return sum(len(scores) > 1 for scores in groups.values()) / len(groups) if groups else math.nan


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
