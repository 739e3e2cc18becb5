"""Weights that follow measured gradients: of the KD term per task, and of each mapped layer's inner loss.

The gradients are those for states that a term shares with the task's cross entropy: the final states of a task's tokens
(as GradNorm 1711.02257 takes the last shared layer), and the states at a mapped layer. Costs a backward pass per
measured step. Assumes unsharded weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from .. import distributed
from ..config import GuidedConfig
from .student import DistillationOutput

COLUMNS = 4
"""Of each part: <task gradient, part's gradient>, the squares of both, tokens."""


class Guidance(TrainerCallback):
    """`weights` by part: "kd/TASK", "hidden/LAYER", "attention/LAYER". Its state is part of a checkpoint."""

    def __init__(self, settings: GuidedConfig, parts: Sequence[str]) -> None:
        self.settings, self.parts = settings, list(parts)
        self.averages: dict[str, list[float]] = {}
        """conflict: [mean cosine]. variance: [mean norm, mean of its square, number of measurements]."""
        self.sums: dict[str, Tensor] = {}

    def measures(self, step: int) -> bool:
        """Whether gradients are measured in this step."""
        return step % self.settings.every_steps == 0

    def measure(self, output: DistillationOutput, fixed_N: Tensor, tasks: Sequence[str], sizes: Sequence[int]) -> None:
        """Adds a micro-batch; the step's sums do not depend on how it is split. Keeps the graph for the real backward.

        `fixed_N`: tokens that carry cross entropy; `tasks` and `sizes`: of each row, its task and number of tokens.
        """
        points = output.points
        assert points is not None, "the student was not asked for points"
        cross_entropy = (output.cross_entropy_N * fixed_N).sum()
        layers = [*points.hidden_BLD.values(), *points.attention_BLD.values()]
        task_gradients = torch.autograd.grad(cross_entropy, [points.final_ND, *layers], retain_graph=True)
        if output.divergence_N is not None:
            (kd_ND,) = torch.autograd.grad(output.divergence_N.sum(), points.final_ND, retain_graph=True)
            pieces = zip(tasks, task_gradients[0].split(list(sizes)), kd_ND.split(list(sizes)), strict=True)
            for task, ours_nD, theirs_nD in pieces:
                self._add(f"kd/{task}", ours_nD, theirs_nD, len(ours_nD))
        places = [
            ("hidden", output.hidden_LN, points.hidden_BLD),
            ("attention", output.attention_LN, points.attention_BLD),
        ]
        gradients = iter(task_gradients[1:])
        for kind, losses_LN, point_of in places:
            for index, (layer, point) in enumerate(point_of.items()):
                assert losses_LN is not None, "a mapped layer has a loss"
                (inner,) = torch.autograd.grad(losses_LN[index].sum(), point, retain_graph=True)
                self._add(f"{kind}/{layer}", next(gradients), inner, len(fixed_N))

    def _add(self, part: str, task: Tensor, inner: Tensor, num_tokens: int) -> None:
        task, inner = task.detach().double().flatten(), inner.detach().double().flatten()
        found = torch.stack([task @ inner, task @ task, inner @ inner, task.new_tensor(float(num_tokens))])
        self.sums[part] = self.sums.get(part, torch.zeros_like(found)) + found

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Takes the step's measurements, of all processes, into the averages."""
        if not self.measures(state.global_step - 1):
            return
        zeros = torch.zeros(COLUMNS, dtype=torch.float64)
        total = distributed.sum_over_processes(torch.stack([self.sums.get(p, zeros).cpu() for p in self.parts]))
        self.sums = {}
        for part, (dot, ours, theirs, tokens) in zip(self.parts, total.tolist(), strict=True):
            if tokens and theirs > 0 and (ours > 0 or self.settings.by == "variance"):
                self._observe(part, dot / math.sqrt(ours * theirs) if ours > 0 else 0.0, math.sqrt(theirs / tokens))

    def _observe(self, part: str, cosine: float, norm: float) -> None:
        keep = self.settings.memory if part in self.averages else 0.0
        new = [cosine] if self.settings.by == "conflict" else [norm, norm**2]
        old = self.averages.get(part, [0.0] * (len(new) + 1))
        count = [old[-1] + 1.0] if len(new) > 1 else []
        self.averages[part] = [keep * before + (1 - keep) * now for before, now in zip(old, new, strict=False)] + count

    def weights(self) -> dict[str, float]:
        """Of every part, between 1 / cap and cap; 1 before there is something to go by.

        conflict: cap^cos, so a term whose gradient agrees with the task's grows and one that fights it shrinks.
        variance: the steadier a part's gradient norm is beside the others of its kind, the more it counts: the mean
        coefficient of variation over its own.
        """
        cap = self.settings.cap
        if self.settings.by == "conflict":
            return {part: cap ** self.averages[part][0] if part in self.averages else 1.0 for part in self.parts}
        spreads = {part: _spread(*found) for part, found in self.averages.items()}
        weights = {}
        for part in self.parts:
            others = [spread for name, spread in spreads.items() if name.split("/")[0] == part.split("/")[0] and spread]
            own = spreads.get(part)
            weights[part] = 1.0 if not own else min(cap, max(1 / cap, sum(others) / len(others) / own))
        return weights

    def state_dict(self) -> Mapping[str, Any]:
        return {"averages": self.averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.averages = {part: list(found) for part, found in state["averages"].items()}


def _spread(mean: float, mean_square: float, count: float) -> float:
    """The coefficient of variation; 0 before there are two measurements."""
    return 0.0 if count < 2 else math.sqrt(max(0.0, mean_square - mean**2)) / mean
