"""Strength of the KL anchor: fixed, annealed, aimed at a target KL, or following the evidence per task.

It may assume plain lists of numbers, the same on all processes. It will not compute a KL.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..config import ConfigError


class Coefficient(Protocol):
    """Strength of the anchor, one number per completion. The same on all processes: it observes global lists."""

    def coefficients(self, tasks: Sequence[str], progress: float) -> list[float]:
        """One per completion of `tasks`; `progress` is the share of training done, 0 to 1."""
        ...

    def observe(self, *, tasks: Sequence[str], successes: Sequence[float | None], kl: float) -> None:
        """Called after each rollout; successes are None where unscored, `kl` is the mean per real token."""
        ...

    def metrics(self) -> dict[str, float]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class FixedCoefficient:
    """The same number always."""

    def __init__(self, value: float) -> None:
        self.value = value

    def coefficients(self, tasks: Sequence[str], progress: float) -> list[float]:
        return [self.value] * len(tasks)

    def observe(self, *, tasks: Sequence[str], successes: Sequence[float | None], kl: float) -> None:
        pass

    def metrics(self) -> dict[str, float]:
        return {"anchor/coefficient": self.value}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class AnnealedCoefficient(FixedCoefficient):
    """`start` until `begin`, then linear to `end` at `finish`; begin and finish are shares of training, 0 to 1."""

    def __init__(self, start: float, end: float, *, begin: float = 0.0, finish: float = 1.0) -> None:
        if not 0 <= begin < finish <= 1:
            raise ConfigError(f"annealing needs 0 <= begin < finish <= 1, got begin={begin}, finish={finish}")
        super().__init__(start)
        self.start, self.end, self.begin, self.finish = start, end, begin, finish

    def coefficients(self, tasks: Sequence[str], progress: float) -> list[float]:
        share = _clamp((progress - self.begin) / (self.finish - self.begin), 0.0, 1.0)
        self.value = self.start + share * (self.end - self.start)
        return super().coefficients(tasks, progress)


class AdaptiveKLController(FixedCoefficient):
    """Raises the coefficient while the observed KL is above `target`, lowers it while below.

        error = clamp((kl - target) / target, -0.2, 0.2)
        coefficient *= 1 + error * min(num_completions / horizon, 1)

    `kl` must be in the target's unit: here the mean per token. `horizon` is in completions: large is slow.
    Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences", section 2.2.
    """

    def __init__(self, initial: float, target: float, horizon: float) -> None:
        if min(initial, target, horizon) <= 0:
            raise ConfigError(f"initial, target and horizon must be positive, got {initial}, {target}, {horizon}")
        super().__init__(initial)
        self.target, self.horizon = target, horizon

    def observe(self, *, tasks: Sequence[str], successes: Sequence[float | None], kl: float) -> None:
        if not math.isfinite(kl):
            raise ConfigError(f"the KL to the teacher is {kl}; the coefficient cannot follow it")
        error = _clamp((kl - self.target) / self.target, -0.2, 0.2)
        self.value *= 1 + error * min(len(tasks) / self.horizon, 1.0)

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.value = float(state["value"])


@dataclass(frozen=True)
class SuccessCount:
    """Verified successes among a number of trials; either may be a fraction, where old trials count less.

    `lower` and `upper` are the ends of Wilson's score interval of one standard error (Wilson 1927): 0 and 1 where there
    are no trials, and the observed rate where there are endlessly many.
    """

    right: float = 0.0
    trials: float = 0.0

    @property
    def rate(self) -> float:
        """The observed rate; NaN without trials."""
        return self.right / self.trials if self.trials else math.nan

    @property
    def lower(self) -> float:
        return _clamp(self._centre - self._half_width, 0.0, 1.0)

    @property
    def upper(self) -> float:
        return _clamp(self._centre + self._half_width, 0.0, 1.0)

    @property
    def _centre(self) -> float:
        return (self.right + 0.5) / (self.trials + 1)

    @property
    def _half_width(self) -> float:
        wrong = self.trials - self.right
        variance = self.right * wrong / self.trials if self.trials else 0.0
        return math.sqrt(variance + 0.25) / (self.trials + 1)

    def discounted(self, decay: float) -> SuccessCount:
        """The same trials, each counting `decay` times as much."""
        return SuccessCount(decay * self.right, decay * self.trials)

    def __add__(self, other: SuccessCount) -> SuccessCount:
        return SuccessCount(self.right + other.right, self.trials + other.trials)


def count_successes(tasks: Sequence[str], successes: Sequence[float | None]) -> dict[str, SuccessCount]:
    """By task, over the completions that were scored; tasks without one are absent."""
    counts: dict[str, SuccessCount] = {}
    for task, success in zip(tasks, successes, strict=True):
        if success is not None and not math.isnan(success):
            counts[task] = counts.get(task, SuccessCount()) + SuccessCount(float(success), 1.0)
    return dict(sorted(counts.items()))


def upper_lead(ahead: SuccessCount, behind: SuccessCount) -> float:
    """How far one success rate may be ahead of another: the difference, plus one standard error of it.

    Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10: the errors of
    the two score intervals add up as squares. Without trials the one behind is taken to have no success.
    """
    first, second = (count.rate if count.trials else 0.5 for count in (ahead, behind))
    return first - second + math.hypot(ahead.upper - first, second - behind.lower)


class EvidenceCoefficient:
    """Per task, strong while the teacher may solve more than the student does, weak once the student has caught up.

        coefficient = clamp(upper_lead(teacher, student) / scale, floor, ceiling)

    The lead is taken one standard error up: the anchor lets go when the student's successes show that it has caught up,
    and not when few of them happen to look like it. Both rates are of sampled completions at the same temperature,
    checked by the same functions. The student's trials of earlier steps count `decay` times as much with every step:
    the policy that made them is gone (discounted counts, as in Raj & Kalyani 2017, arXiv 1707.09727).

    A task without a teacher's count keeps `ceiling`, as under a fixed coefficient. Whatever names the evidence may
    serve as a task, a single problem included.
    """

    COUNTS = ("teacher_success", "student_success")

    def __init__(
        self,
        teacher_success: Mapping[str, SuccessCount],
        *,
        floor: float = 0.05,
        ceiling: float = 1.0,
        scale: float = 0.15,
        decay: float = 0.9,
    ) -> None:
        if not (0 <= floor <= ceiling and scale > 0 and 0 <= decay < 1):
            raise ConfigError(
                f"want 0 <= floor <= ceiling, scale > 0, 0 <= decay < 1: {floor=} {ceiling=} {scale=} {decay=}"
            )
        self.teacher_success = dict(teacher_success)
        self.floor, self.ceiling, self.scale, self.decay = floor, ceiling, scale, decay
        self.student_success: dict[str, SuccessCount] = {}

    def coefficient(self, task: str) -> float:
        if task not in self.teacher_success:
            return self.ceiling
        lead = upper_lead(self.teacher_success[task], self.student_success.get(task, SuccessCount()))
        return _clamp(lead / self.scale, self.floor, self.ceiling)

    def coefficients(self, tasks: Sequence[str], progress: float) -> list[float]:
        by_task = {task: self.coefficient(task) for task in set(tasks)}
        return [by_task[task] for task in tasks]

    def observe(self, *, tasks: Sequence[str], successes: Sequence[float | None], kl: float) -> None:
        seen = count_successes(tasks, successes)
        old = {task: count.discounted(self.decay) for task, count in self.student_success.items()}
        none = SuccessCount()
        self.student_success = {task: old.get(task, none) + seen.get(task, none) for task in sorted({*old, *seen})}

    def metrics(self) -> dict[str, float]:
        """The rates are NaN where nothing was counted."""
        metrics = {f"anchor/coefficient/{task}": self.coefficient(task) for task in sorted(self.teacher_success)}
        for name in self.COUNTS:
            metrics |= {f"anchor/{name}/{task}": count.rate for task, count in getattr(self, name).items()}
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """The teacher's counts too: they change where the next teacher takes over."""
        return {name: {task: [n.right, n.trials] for task, n in getattr(self, name).items()} for name in self.COUNTS}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in self.COUNTS:
            setattr(self, name, {task: SuccessCount(*count) for task, count in state[name].items()})


def _clamp(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)
