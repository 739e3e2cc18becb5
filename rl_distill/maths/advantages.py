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
def gae(rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """(advantages_BT, returns_BT) by generalised advantage estimation; both are 0 outside the mask.

        delta_t = r_t + gamma * V_{t+1} - V_t        A_t = delta_t + gamma * lam * A_{t+1}        R_t = A_t + V_t

    V after the last real token is 0, also where the completion was cut by length: the score is given there and nothing
    can be earned after it. A value bootstrapped there would be a second payment, and its own target: with every score
    exactly 1, returns of cut completions grow without end. Masked-out positions are skipped, wherever they are: the
    token before a gap is followed by the one after it.

    Schulman et al. 2015, "High-Dimensional Continuous Control Using Generalized Advantage Estimation", eq. 11-16.
    """
    assert rewards_BT.shape == values_BT.shape == mask_BT.shape, (rewards_BT.shape, values_BT.shape, mask_BT.shape)
    mask_BT = mask_BT.bool()
    next_values_BT = _next_values(values_BT, mask_BT)
    deltas_BT = torch.where(mask_BT, rewards_BT + gamma * next_values_BT - values_BT, 0.0)
    decays_BT = torch.where(mask_BT, gamma * lam, 1.0).to(deltas_BT.dtype)

    advantage_B = torch.zeros_like(deltas_BT[:, 0])
    columns = []
    for delta_B, decay_B in zip(reversed(deltas_BT.unbind(1)), reversed(decays_BT.unbind(1)), strict=True):
        advantage_B = torch.addcmul(delta_B, decay_B, advantage_B)
        columns.append(advantage_B)
    advantages_BT = torch.where(mask_BT, torch.stack(columns[::-1], dim=1), 0.0)
    return advantages_BT, torch.where(mask_BT, advantages_BT + values_BT, 0.0)


def _next_values(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The value at the next real position after t, 0 where there is none."""
    num_columns = values_BT.shape[1]
    columns_T = torch.arange(num_columns, device=values_BT.device)
    real_BT = torch.where(mask_BT, columns_T, num_columns)
    first_real_from_BT = real_BT.flip(1).cummin(dim=1).values.flip(1)
    next_real_BT = torch.cat([first_real_from_BT[:, 1:], torch.full_like(real_BT[:, :1], num_columns)], dim=1)
    return torch.nn.functional.pad(values_BT, (0, 1)).gather(1, next_real_BT)


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

    A positive `kl_BT` LOWERS the reward. It must be the k1 estimate, log policy - log teacher of the sampled token:
    E[sum of the rewards] is then E[score] - coefficient * KL of the whole completions, and the policy gradient of the
    one is that of the other. The exact KL of a state does not depend on the token chosen there, so as a reward it is a
    baseline for that choice and has no gradient in it; k2 and k3 have the gradient of other functions. Ziegler et al.
    2019, eq. 2.
    """
    assert rewards_BT.shape == kl_BT.shape == mask_BT.shape, (rewards_BT.shape, kl_BT.shape, mask_BT.shape)
    return torch.where(mask_BT.bool(), rewards_BT - coefficients_B[:, None] * kl_BT, 0.0)


@torch.no_grad()
def group_mean_advantages(
    returns_B: Tensor, group_ids_B: Tensor, mask_BT: Tensor, *, scale: bool = False, eps: float = 1e-4
) -> Tensor:
    """advantages_BT: return minus the mean return of its group, the same on every real token; 0 outside the mask.

    A completion's return is the sum of its rewards: the score, less the anchor's coefficient times the summed KL where
    the anchor is in the reward. With n rows in a group the gradient is (n - 1) / n of that of the expected return.
    Rows whose return is NaN (unscored) are left out of the means and get advantage 0, as does a group with one scored
    row. `scale` divides by the group's sample standard deviation (n - 1) plus `eps`; without it a group's weight does
    not depend on how hard its problem is (Liu et al. 2025, "Understanding R1-Zero-Like Training"). A group lies within
    one process. Shao et al. 2024, "DeepSeekMath", section 4.1 (GRPO, outcome supervision).
    """
    assert returns_B.shape == group_ids_B.shape == mask_BT.shape[:1], (
        returns_B.shape,
        group_ids_B.shape,
        mask_BT.shape,
    )
    scored_B = ~returns_B.isnan()
    groups, group_index_B = group_ids_B.unique(return_inverse=True)

    def group_sums(x_B: Tensor) -> Tensor:
        return x_B.new_zeros(len(groups)).index_add(0, group_index_B, x_B)

    counts = group_sums(scored_B.to(returns_B.dtype))
    means = group_sums(torch.where(scored_B, returns_B, 0.0)) / counts.clamp(min=1)
    advantages_B = torch.where(scored_B, returns_B - means[group_index_B], 0.0)
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
