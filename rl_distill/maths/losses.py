"""Clipped policy and value losses, and the small terms beside them.

Every loss and every statistic is a sum over real tokens divided by `count`, the GLOBAL token count of the optimizer
step (all its micro-batches, all processes): the parts of a step add up, however it was split. A caller whose framework
averages gradients over processes multiplies by their number.
Knows nothing of models, configs or logging; masks are true through EOS inclusive.

Shapes: B completions, T completion tokens.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .masking import masked_mean

MAX_LOG_RATIO = 20.0
"""exp(20) = 5e8: beyond it a ratio says nothing, but infinity times a zero advantage would be NaN."""


@dataclass(frozen=True)
class PolicyStats:
    """Detached sums over real tokens / count; those of the micro-batches of a step add up to the step's means."""

    ratio: Tensor
    """new / old probability of the token; 1 when nothing has moved."""
    approx_kl: Tensor
    """KL(old || new), estimated by ratio - 1 - log ratio on tokens drawn from old; never negative."""
    clip_fraction: Tensor
    """share of tokens where a clipped branch (any) is the one that counts."""
    clip_low_fraction: Tensor
    """... below 1 - clip_low, with a negative advantage."""
    clip_high_fraction: Tensor
    """... above 1 + clip_high, with a positive advantage."""
    dual_clip_fraction: Tensor
    """... held at dual_clip, with a negative advantage."""


@dataclass(frozen=True)
class ValueStats:
    """Detached sums over real tokens / count, as in PolicyStats."""

    clip_fraction: Tensor
    """share of tokens where the clipped value's error is the larger one."""
    error: Tensor
    """mean absolute difference of value and return."""


def policy_loss(
    logprobs_BT: Tensor,
    old_logprobs_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
    count: Tensor | float,
) -> tuple[Tensor, PolicyStats]:
    """(loss to MINIMISE, stats): the clipped surrogate, with ratio = exp(logprobs - old_logprobs).

        L = -sum_t min(ratio * A, clamp(ratio, 1 - clip_low, 1 + clip_high) * A) / count

    Schulman et al. 2017, "Proximal Policy Optimization Algorithms", eq. 7; clip_low != clip_high is Yu et al. 2025
    (DAPO). `dual_clip` c > 1 bounds the term from below by c * A where A < 0, because min() leaves ratio * A unbounded
    there: Ye et al. 2020, "Mastering Complex Control in MOBA Games with Deep Reinforcement Learning", eq. 3.
    """
    assert logprobs_BT.shape == old_logprobs_BT.shape == advantages_BT.shape == mask_BT.shape, logprobs_BT.shape
    assert dual_clip is None or dual_clip > 1, dual_clip
    mask_BT = mask_BT.bool()
    log_ratio_BT = torch.where(mask_BT, logprobs_BT - old_logprobs_BT, 0.0).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    advantages_BT = torch.where(mask_BT, advantages_BT, 0.0)
    ratio_BT = log_ratio_BT.exp()

    free_BT = ratio_BT * advantages_BT
    objective_BT = torch.minimum(free_BT, ratio_BT.clamp(1 - clip_low, 1 + clip_high) * advantages_BT)
    is_negative_BT = advantages_BT < 0
    is_dual_BT = torch.zeros_like(mask_BT)
    if dual_clip is not None:
        floor_BT = dual_clip * advantages_BT
        is_dual_BT = is_negative_BT & (objective_BT < floor_BT)
        objective_BT = torch.where(is_dual_BT, floor_BT, objective_BT)

    with torch.no_grad():
        is_low_BT = is_negative_BT & (ratio_BT < 1 - clip_low)
        is_high_BT = (advantages_BT > 0) & (ratio_BT > 1 + clip_high)
        stats = PolicyStats(
            ratio=masked_mean(ratio_BT, mask_BT, count),
            approx_kl=masked_mean(ratio_BT - 1 - log_ratio_BT, mask_BT, count),
            clip_fraction=masked_mean((is_low_BT | is_high_BT | is_dual_BT).float(), mask_BT, count),
            clip_low_fraction=masked_mean(is_low_BT.float(), mask_BT, count),
            clip_high_fraction=masked_mean(is_high_BT.float(), mask_BT, count),
            dual_clip_fraction=masked_mean(is_dual_BT.float(), mask_BT, count),
        )
    return -masked_mean(objective_BT, mask_BT, count), stats


def value_loss(
    values_BT: Tensor,
    old_values_BT: Tensor,
    returns_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip: float | None,
    count: Tensor | float,
) -> tuple[Tensor, ValueStats]:
    """(loss, stats): half the squared error, the larger of the free and the clipped value's.

        L = 0.5 * sum_t max((V - R)^2, (clamp(V, V_old - clip, V_old + clip) - R)^2) / count

    `clip` None is the plain squared error. Multiply by the value coefficient outside. Schulman et al. 2017, eq. 9, with
    the clipping of its reference implementation (OpenAI baselines, ppo2).
    """
    assert values_BT.shape == old_values_BT.shape == returns_BT.shape == mask_BT.shape, values_BT.shape
    free_BT = (values_BT - returns_BT).square()
    if clip is None:
        error_BT, is_clipped_BT = free_BT, torch.zeros_like(mask_BT, dtype=torch.bool)
    else:
        clipped_BT = (values_BT.clamp(old_values_BT - clip, old_values_BT + clip) - returns_BT).square()
        error_BT, is_clipped_BT = torch.maximum(free_BT, clipped_BT), clipped_BT > free_BT
    with torch.no_grad():
        stats = ValueStats(
            clip_fraction=masked_mean(is_clipped_BT.float(), mask_BT, count),
            error=masked_mean((values_BT - returns_BT).abs(), mask_BT, count),
        )
    return 0.5 * masked_mean(error_BT, mask_BT, count), stats


def entropy_bonus(entropy_N: Tensor, *, count: Tensor | float) -> Tensor:
    """Summed entropy / count. SUBTRACT it (times its coefficient) from the loss to keep the policy exploring."""
    return entropy_N.sum() / count


def anchor_loss(kl_N: Tensor, coefficients_N: Tensor, *, count: Tensor | float) -> Tensor:
    """sum_n coefficient * KL(policy || teacher) / count: ADD it to the loss to pull the policy to its teacher.

    `kl_N` must carry the gradient: the exact or top-k KL, or k2. k1 as a loss has zero expected gradient on tokens of
    the policy's own, and k3 has the gradient of the forward KL (see rl_distill.maths.kl).
    """
    assert kl_N.shape == coefficients_N.shape, (kl_N.shape, coefficients_N.shape)
    return (coefficients_N * kl_N).sum() / count


@torch.no_grad()
def sampler_weights(logprobs_BT: Tensor, sampler_logprobs_BT: Tensor, mask_BT: Tensor, *, cap: float) -> Tensor:
    """min(exp(logprobs - sampler_logprobs), cap) per token; 0 outside the mask. Multiply the ADVANTAGES by it.

    Corrects for a sampler (vLLM, bf16 kernels, a KV cache) whose probabilities differ from the training forward's,
    which are `logprobs_BT`. Truncated importance sampling, Ionides 2008; Yao et al. 2025, "Your Efficient RL Framework
    Secretly Brings You Off-Policy RL Training".
    """
    log_ratio_BT = torch.where(mask_BT.bool(), logprobs_BT - sampler_logprobs_BT, -torch.inf)
    return log_ratio_BT.exp().clamp(max=cap)
