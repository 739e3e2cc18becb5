"""From scores to rewards to advantages: who gets the credit for a completion's score.

Index t of every *_BT tensor is about completion token t: its reward arrives after it, its value is the estimate just
before it. Masks are true through EOS inclusive. Results are targets: no gradient flows through any function here.
Knows nothing of models, configs or logging.

Shapes: B completions, T completion tokens.
"""

import torch
from torch import Tensor

from .masking import Reduce, moments


@torch.no_grad()
def gae(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, bootstrap_B: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """(advantages_BT, returns_BT) by generalised advantage estimation; both are 0 outside the mask.

        delta_t = r_t + gamma * V_{t+1} - V_t        A_t = delta_t + gamma * lam * A_{t+1}        R_t = A_t + V_t

    `bootstrap_B` is V after the last real token: 0 where the completion finished, the critic's value where it was cut
    by length (a cut is not a termination). Masked-out positions are skipped, wherever they are: the token before a gap
    is followed by the one after it.

    Schulman et al. 2015, "High-Dimensional Continuous Control Using Generalized Advantage Estimation", eq. 11-16.
    """
    assert rewards_BT.shape == values_BT.shape == mask_BT.shape, (rewards_BT.shape, values_BT.shape, mask_BT.shape)
    assert bootstrap_B.shape == rewards_BT.shape[:1], (bootstrap_B.shape, rewards_BT.shape)
    mask_BT = mask_BT.bool()
    next_values_BT = _next_values(values_BT, mask_BT, bootstrap_B)
    deltas_BT = torch.where(mask_BT, rewards_BT + gamma * next_values_BT - values_BT, 0.0)
    decays_BT = torch.where(mask_BT, gamma * lam, 1.0).to(deltas_BT.dtype)

    advantage_B = torch.zeros_like(deltas_BT[:, 0])
    columns = []
    for delta_B, decay_B in zip(reversed(deltas_BT.unbind(1)), reversed(decays_BT.unbind(1)), strict=True):
        advantage_B = torch.addcmul(delta_B, decay_B, advantage_B)
        columns.append(advantage_B)
    advantages_BT = torch.where(mask_BT, torch.stack(columns[::-1], dim=1), 0.0)
    return advantages_BT, torch.where(mask_BT, advantages_BT + values_BT, 0.0)


def _next_values(values_BT: Tensor, mask_BT: Tensor, bootstrap_B: Tensor) -> Tensor:
    """The value at the next real position after t, or the bootstrap where there is none."""
    num_columns = values_BT.shape[1]
    columns_T = torch.arange(num_columns, device=values_BT.device)
    real_BT = torch.where(mask_BT, columns_T, num_columns)
    first_real_from_BT = real_BT.flip(1).cummin(dim=1).values.flip(1)
    next_real_BT = torch.cat([first_real_from_BT[:, 1:], torch.full_like(real_BT[:, :1], num_columns)], dim=1)
    return torch.cat([values_BT, bootstrap_B[:, None].to(values_BT.dtype)], dim=1).gather(1, next_real_BT)


@torch.no_grad()
def scores_to_rewards(scores_B: Tensor, mask_BT: Tensor) -> Tensor:
    """rewards_BT with each completion's score on its last real token (the EOS if there is one) and 0 elsewhere.

    A NaN score (unscored) stays NaN there on purpose: leave such rows out before, or training stops loudly.
    """
    assert scores_B.shape == mask_BT.shape[:1], (scores_B.shape, mask_BT.shape)
    num_real_from_BT = mask_BT.long().flip(1).cumsum(dim=1).flip(1)
    is_last_BT = mask_BT.bool() & (num_real_from_BT == 1)
    return torch.where(is_last_BT, scores_B[:, None], 0.0)


@torch.no_grad()
def anchored_rewards(rewards_BT: Tensor, kl_BT: Tensor, coefficients_B: Tensor, mask_BT: Tensor) -> Tensor:
    """rewards_BT - coefficient * KL(policy || teacher), per token; 0 outside the mask.

    A positive `kl_BT` LOWERS the reward. Use the k1 estimator or the exact KL here: as a constant in the reward only k1
    has the KL's policy gradient in expectation, and k3 is unbounded. Ziegler et al. 2019, eq. 2.
    """
    assert rewards_BT.shape == kl_BT.shape == mask_BT.shape, (rewards_BT.shape, kl_BT.shape, mask_BT.shape)
    return torch.where(mask_BT.bool(), rewards_BT - coefficients_B[:, None] * kl_BT, 0.0)


@torch.no_grad()
def group_mean_advantages(
    scores_B: Tensor, group_ids_B: Tensor, mask_BT: Tensor, *, scale: bool = False, eps: float = 1e-4
) -> Tensor:
    """advantages_BT: score minus the mean score of its group, the same on every real token; 0 outside the mask.

    Rows whose score is NaN (unscored) are left out of the means and get advantage 0, as does a group with one scored
    row. `scale` divides by the group's sample standard deviation (n - 1) plus `eps`; without it a group's weight does
    not depend on how hard its problem is (Liu et al. 2025, "Understanding R1-Zero-Like Training"). A group lies within
    one process. Shao et al. 2024, "DeepSeekMath", section 4.1 (GRPO, outcome supervision).
    """
    assert scores_B.shape == group_ids_B.shape == mask_BT.shape[:1], (scores_B.shape, group_ids_B.shape, mask_BT.shape)
    scored_B = ~scores_B.isnan()
    groups, group_index_B = group_ids_B.unique(return_inverse=True)

    def group_sums(x_B: Tensor) -> Tensor:
        return x_B.new_zeros(len(groups)).index_add(0, group_index_B, x_B)

    counts = group_sums(scored_B.to(scores_B.dtype))
    means = group_sums(torch.where(scored_B, scores_B, 0.0)) / counts.clamp(min=1)
    advantages_B = torch.where(scored_B, scores_B - means[group_index_B], 0.0)
    if scale:
        stds = (group_sums(advantages_B.square()) / (counts - 1).clamp(min=1)).sqrt()
        advantages_B = advantages_B / (stds[group_index_B] + eps)
    return torch.where(mask_BT.bool(), advantages_B[:, None], 0.0)


def explained_variance(returns_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, reduce: Reduce | None = None) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over all real tokens of all processes.

    1 is a perfect critic, 0 a constant, negative worse than a constant; NaN when the returns do not vary. A critic that
    is wrong by the same amount everywhere still scores 1: the statistic ignores a constant offset.
    """
    _, residual_variance, _ = moments(returns_BT - values_BT, mask_BT, reduce)
    _, return_variance, _ = moments(returns_BT, mask_BT, reduce)
    return torch.where(return_variance > 0, 1 - residual_variance / return_variance, torch.nan)
