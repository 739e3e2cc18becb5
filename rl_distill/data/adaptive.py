"""Sampling that follows verified success: more of weak groups, of groups in motion, or of prompts worth another look.

It may assume successes of all processes, as the anchor's evidence does. It will not grade anything, and gives a group
that nothing verifies exactly its own share.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import SamplingConfig
from ..types import Problem
from .mixture import PromptSampler

Count = list[float]
"""[right, trials]."""


class AdaptiveSampler(PromptSampler):
    """A sampler that follows verified success, as `settings` say."""

    def __init__(
        self,
        problems: Sequence[Problem],
        number: int,
        seed: int,
        settings: SamplingConfig,
        shares: Mapping[str, float] | None = None,
        tokens: Sequence[float] | None = None,
    ) -> None:
        super().__init__(problems, number, seed, shares, tokens)
        self.settings = settings


class WeightedSampler(AdaptiveSampler):
    """Shares of the groups by what `weights` says of those with verified successes.

        share = (floor * base + (1 - floor) * base * weight / sum(base * weight)) * (base mass of the weighed groups)

    with `base` taken among the weighed groups. Weights that are all 0 count as equal.
    """

    def weights(self) -> dict[str, float]:
        """By group, those that can be weighed; not negative."""
        raise NotImplementedError

    def shares(self) -> dict[str, float]:
        weights, floor = self.weights(), self.settings.floor
        mass = sum(self.base[name] for name in weights)
        pull = {name: self.base[name] * weight for name, weight in weights.items()}
        total = sum(pull.values())
        if total <= 0:
            return self.base
        changed = {n: floor * self.base[n] + (1 - floor) * mass * pull[n] / total for n in weights}
        return self.base | changed

    def metrics(self) -> dict[str, float]:
        weights = {f"sampling/weight/{name}": weight for name, weight in self.weights().items()}
        return super().metrics() | weights

    def count(self, successes: Sequence[float | None]) -> dict[str, Count]:
        """[right, trials] of this step by group, those with any."""
        counts: dict[str, Count] = {}
        for name, _, known in self.by_prompt(successes):
            if known:
                right, trials = counts.get(name, [0.0, 0.0])
                counts[name] = [right + sum(known), trials + len(known)]
        return counts


class WeakTasks(WeightedSampler):
    """weight = exp((target - success) / temperature), success at or above the target counting as the target.

    Trials of earlier steps count `decay` times as much with every step, so that the rate follows the policy.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: dict[str, Count] = {}

    def weights(self) -> dict[str, float]:
        target, temperature = self.settings.target, self.settings.temperature
        gaps = {name: max(0.0, target - right / trials) for name, (right, trials) in self.seen.items()}
        largest = max(gaps.values(), default=0.0)  # subtracted so that nothing overflows; only ratios matter
        return {name: math.exp((gap - largest) / temperature) for name, gap in gaps.items()}

    def observe(self, successes: Sequence[float | None]) -> None:
        decay, new = self.settings.decay, self.count(successes)
        for name, (right, trials) in new.items():  # a group that was not drawn keeps what is known of it
            before = self.seen.get(name, [0.0, 0.0])
            self.seen[name] = [decay * before[0] + right, decay * before[1] + trials]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.seen = {name: list(count) for name, count in state["seen"].items()}


class LearningProgress(WeightedSampler):
    """weight = how far the success rates of the last two windows of steps differ, beyond one standard error of that.

    Without the standard error a group that moves by chance alone would pass for one that learns; a group that is never
    solved has no difference at all and keeps its floor. A group is weighed once it has trials in both windows. After
    Matiisen et al. 2017, "Teacher-Student Curriculum Learning" (absolute progress).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.steps: list[dict[str, Count]] = []
        """Counts of the last 2 x window steps, the oldest first."""

    def weights(self) -> dict[str, float]:
        window = self.settings.window
        if len(self.steps) < 2 * window:
            return {}
        found = {}
        for name in self.groups:
            old, new = (_sum(self.steps[a : a + window], name) for a in (0, window))
            if old[1] and new[1]:
                found[name] = max(0.0, abs(new[0] / new[1] - old[0] / old[1]) - standard_error(old, new))
        return found

    def observe(self, successes: Sequence[float | None]) -> None:
        self.steps = [*self.steps, self.count(successes)][-2 * self.settings.window :]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.steps = [{name: list(count) for name, count in step.items()} for step in state["steps"]]


def standard_error(old: Count, new: Count) -> float:
    """Of the difference of two rates, by their pooled rate; 0 where no trial or every trial succeeded."""
    rate = (old[0] + new[0]) / (old[1] + new[1])
    return math.sqrt(max(0.0, rate * (1 - rate)) * (1 / old[1] + 1 / new[1]))


def _sum(steps: Sequence[Mapping[str, Count]], name: str) -> Count:
    counts = [step[name] for step in steps if name in step]
    return [sum(right for right, _ in counts), sum(trials for _, trials in counts)]


class PromptPools(AdaptiveSampler):
    """Within each group's share, prompts by what their earlier answers were.

    Unseen, sometimes solved, never solved, and always solved; the last rest after `retire_after` visits in a row with
    right answers alone, and may come again every `retest_every` steps. A step draws without repetition by the pools'
    weights (Efraimidis & Spirakis 2006); retired prompts fill what no other can, those unseen the longest first.
    """

    POOLS = ("unseen", "sometimes", "never", "retired")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.visits: dict[str, list[float]] = {}
        """By key of the problem: [right, trials, visits in a row that were always right, step of the last visit]."""

    def pool(self, row: int) -> str:
        """One of POOLS; prompts without a verified answer stay unseen."""
        visit = self.visits.get(self.problems[row].key)
        if visit is None:
            return "unseen"
        right, _, streak, _ = visit
        if streak >= self.settings.retire_after:
            return "retired"
        return "sometimes" if right > 0 else "never"

    def observe(self, successes: Sequence[float | None]) -> None:
        for _, row, known in self.by_prompt(successes):
            if known:
                right, trials, streak, _ = self.visits.get(self.problems[row].key, [0.0, 0.0, 0, 0])
                streak = streak + 1 if min(known) == 1 else 0
                now = [right + sum(known), trials + len(known), streak, self.step]
                self.visits[self.problems[row].key] = now

    def metrics(self) -> dict[str, float]:
        """How many prompts are in each pool, beside the shares of the groups."""
        found = [self.pool(row) for row in range(len(self.problems))]
        return super().metrics() | {f"sampling/pool/{name}": float(found.count(name)) for name in self.POOLS}

    def _within(self, names: Sequence[str]) -> list[int]:
        draw = random.Random(f"{self.seed}:pools:{self.step}")
        chosen = {name: iter(self._chosen(name, names.count(name), draw)) for name in self.groups}
        return [next(chosen[name]) for name in names]

    def _chosen(self, name: str, number: int, draw: random.Random) -> list[int]:
        """`number` indices of the group, repeated only where it has fewer."""
        rows = self.groups[name]
        weights = [self._weight(row) for row in rows]
        keys = {row: draw.random() ** (1 / w) if w else self._rest(row) for row, w in zip(rows, weights, strict=True)}
        order = sorted(rows, key=lambda row: keys[row], reverse=True)
        return [order[i % len(order)] for i in range(number)]

    def _weight(self, row: int) -> float:
        """0 for a retired prompt whose re-test is not due."""
        settings, pool = self.settings, self.pool(row)
        if pool == "unseen":
            return settings.unseen_weight
        if pool == "never":
            return settings.never_weight
        if pool == "retired" and self.step - self.visits[self.problems[row].key][3] < settings.retest_every:
            return 0.0
        return settings.sometimes_weight

    def _rest(self, row: int) -> float:
        """Below every drawn key, the higher the longer ago its last visit."""
        return -1.0 - self.visits[self.problems[row].key][3]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"visits": self.visits}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.visits = {key: list(visit) for key, visit in state["visits"].items()}


def make_sampler(
    problems: Sequence[Problem],
    number: int,
    seed: int,
    settings: SamplingConfig,
    shares: Mapping[str, float] | None,
    tokens: Sequence[float] | None = None,
) -> PromptSampler | None:
    """What chooses the prompts of a step; None where shuffled passes over all of them are all that is asked for.

    `tokens`: expected tokens of each problem's row, where the shares are of tokens.
    """
    kinds = {"weak_tasks": WeakTasks, "learning_progress": LearningProgress, "prompt_pools": PromptPools}
    if settings.kind == "fixed":
        return None if shares is None else PromptSampler(problems, number, seed, shares, tokens)
    return kinds[settings.kind](problems, number, seed, settings, shares, tokens)
