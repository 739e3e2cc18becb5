"""KL(policy || ref): estimators on sampled tokens, exact and top-k values, and coefficients that weigh them.

Everywhere the policy is the first argument and the direction is KL(policy || ref), the "reverse" KL when ref is a
teacher: large where the policy puts probability that the reference does not. Tokens were sampled from the policy.
Knows nothing of models or configs. A coefficient keeps its own state and is saved with the checkpoint.

Shapes: B completions, T completion tokens, V vocabulary, K ids that a teacher reports. Functions accept any leading
dimensions.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


def kl_k1(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    """log policy - log ref, of the sampled token: unbiased, high variance, negative on about half of the tokens.

    The one for the REWARD. As a loss its expected gradient is zero.
    Schulman 2020, "Approximating KL Divergence" (joschu.net/blog/kl-approx.html), as are k2 and k3.
    """
    return logprobs_BT - ref_logprobs_BT


def kl_k2(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    """(log policy - log ref)^2 / 2: biased, never negative. As a LOSS its gradient is the KL's in expectation."""
    return 0.5 * (logprobs_BT - ref_logprobs_BT).square()


def kl_k3(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    """ref/policy - 1 - log(ref/policy): unbiased, never negative, unbounded where the ref likes a token much better.

    As a loss its gradient is that of the FORWARD KL(ref || policy).
    """
    log_ratio_BT = ref_logprobs_BT - logprobs_BT
    return torch.expm1(log_ratio_BT) - log_ratio_BT


def exact_kl(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """sum_v p_v * (log p_v - log q_v) per token, p = softmax(logits), q = softmax(ref_logits), in at least float32.

    Both must have the same size V; a padded vocabulary is the caller's to slice. Holds several tensors of the logits'
    size: `rl_distill.logprobs.token_statistics` is the same from hidden states in bounded memory.
    """
    assert logits.shape == ref_logits.shape, (logits.shape, ref_logits.shape)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    logp = logits.log_softmax(dim=-1, dtype=dtype)
    logq = ref_logits.log_softmax(dim=-1, dtype=dtype)
    p = logp.exp()
    return (p * (logp - logq).masked_fill(p == 0, 0.0)).sum(dim=-1)


def top_k_kl(logprobs_BTK: Tensor, teacher_logprobs_BTK: Tensor) -> Tensor:
    """KL(policy || teacher) per token over K + 1 outcomes: the teacher's top K ids, and "any other" as one bucket.

        sum_k p_k * (log p_k - log q_k)  +  p_rest * (log p_rest - log q_rest),    p_rest = 1 - sum_k p_k

    Both arguments hold the log-probabilities of the SAME ids, those the teacher reported. Never above the exact KL
    (merging outcomes loses information) and equal to it when the rest is empty or proportional. Without the bucket a
    policy could leave the K ids for free.
    """
    assert logprobs_BTK.shape == teacher_logprobs_BTK.shape, (logprobs_BTK.shape, teacher_logprobs_BTK.shape)
    logp = torch.cat([logprobs_BTK, log_rest(logprobs_BTK)], dim=-1)
    logq = torch.cat([teacher_logprobs_BTK, log_rest(teacher_logprobs_BTK)], dim=-1)
    return (logp.exp() * (logp - logq)).sum(dim=-1)


def log_rest(logprobs_BTK: Tensor) -> Tensor:
    """log(1 - sum_k exp(logprobs)), with a last dimension of 1. A rest below rounding counts as the dtype's eps."""
    log_total = torch.logsumexp(logprobs_BTK, dim=-1, keepdim=True)
    return torch.log(-torch.expm1(log_total.clamp(max=-torch.finfo(logprobs_BTK.dtype).eps)))


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
            raise ValueError(f"annealing needs 0 <= begin < finish <= 1, got begin={begin}, finish={finish}")
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
            raise ValueError(f"initial, target and horizon must be positive, got {initial}, {target}, {horizon}")
        super().__init__(initial)
        self.target, self.horizon = target, horizon

    def observe(self, *, tasks: Sequence[str], successes: Sequence[float | None], kl: float) -> None:
        if not math.isfinite(kl):
            raise ValueError(f"the KL to the teacher is {kl}; the coefficient cannot follow it")
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
            raise ValueError(
                f"want 0 <= floor <= ceiling, scale > 0, 0 <= decay < 1: {floor=} {ceiling=} {scale=} {decay=}"
            )
        self.teacher_success = dict(teacher_success)
        self.floor, self.ceiling, self.scale, self.decay = floor, ceiling, scale, decay
        self.student_success: dict[str, float] = {}

    def coefficient(self, task: str) -> float:
        if task not in self.teacher_success:
            known = ", ".join(sorted(self.teacher_success)) or "none"
            raise ValueError(
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
