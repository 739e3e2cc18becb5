"""Strength of the KL anchor: fixed, annealed, aimed at a target KL, or following the evidence per task.

It may assume plain lists of numbers, the same on all processes. It will not compute a KL.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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


class EvidenceCoefficient:
    """Per task, strong while the teacher solves more than the student does, weak once the student has caught up.

        coefficient = clamp((teacher_success - student_success) / scale, floor, ceiling)

    `teacher_success` is the verified success rate of the teacher per task, measured the way rollouts are (sampled at
    the same temperature): against a greedy rate the anchor never lets go. student_success is a running mean over
    rollouts (`decay` of the old, 1 - decay of the new batch mean); before a task's first one its coefficient is
    `ceiling`. Whatever names the evidence may serve as a task, a single problem included.
    """

    def __init__(
        self,
        teacher_success: Mapping[str, float],
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
        self.student_success: dict[str, float] = {}

    def coefficient(self, task: str) -> float:
        if task not in self.teacher_success:
            known = ", ".join(sorted(self.teacher_success)) or "none"
            raise ConfigError(
                f"no teacher success rate for task {task!r} (have: {known}); measure the teacher on it first"
            )
        if task not in self.student_success:
            return self.ceiling
        gap = self.teacher_success[task] - self.student_success[task]
        return _clamp(gap / self.scale, self.floor, self.ceiling)

    def coefficients(self, tasks: Sequence[str], progress: float) -> list[float]:
        by_task = {task: self.coefficient(task) for task in set(tasks)}
        return [by_task[task] for task in tasks]

    def observe(self, *, tasks: Sequence[str], successes: Sequence[float | None], kl: float) -> None:
        scored: dict[str, list[float]] = {}
        for task, success in zip(tasks, successes, strict=True):
            if success is not None and not math.isnan(success):
                scored.setdefault(task, []).append(float(success))
        for task, values in scored.items():
            mean = math.fsum(values) / len(values)
            running = self.student_success.get(task, mean)
            self.student_success[task] = self.decay * running + (1 - self.decay) * mean

    def metrics(self) -> dict[str, float]:
        metrics = {f"anchor/coefficient/{task}": self.coefficient(task) for task in sorted(self.teacher_success)}
        return metrics | {f"anchor/student_success/{task}": rate for task, rate in sorted(self.student_success.items())}

    def state_dict(self) -> dict[str, Any]:
        return {"student_success": dict(self.student_success)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.student_success = {task: float(rate) for task, rate in state["student_success"].items()}


def _clamp(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)
