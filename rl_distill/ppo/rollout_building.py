"""From scores, log-probs and values to a rollout with its advantages and returns, as the config names them.

The maths is in advantages.py, masking.py and losses.py; statistics are over all processes. Nothing carries a gradient.

Shapes: B completions, T completion tokens, E teacher width, K teacher's scalars or likeliest ids.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from reward_models import BlendedScores

from .. import distributed
from ..config import RunConfig
from ..maths.advantages import anchored_rewards, gae, group_mean_advantages, scores_to_rewards
from ..maths.batching import completion_lengths_mask
from ..maths.kl import kl_k1
from ..maths.losses import sampler_weights
from ..maths.masking import center, moments, standardize
from ..types import Completion, Finish, Problem
from .coefficients import Coefficient


@dataclass
class Sampled:
    """This process's rows of one step: prompts and the completions sampled at `temperature`."""

    step: int
    problems: list[Problem]
    prompt_ids: list[list[int]]
    completions: list[Completion]
    temperature: float


@dataclass
class Rollout(Sampled):
    """Everything that the updates read. `mask_BT` is true on real tokens; tensors may hold one more state per row, the
    one after a completion that was cut by length, which only the bootstrap value reads.
    """

    mask_BT: Tensor
    logprobs_BT: Tensor
    values_BT: Tensor
    kl_BT: Tensor
    entropy_BT: Tensor
    teacher_hidden_BTE: Tensor
    teacher_logprobs_BT: Tensor
    teacher_scalars_BTK: Tensor
    scores: BlendedScores
    anchor_B: Tensor
    advantages_BT: Tensor
    returns_BT: Tensor
    teacher_top_ids_BTK: Tensor | None = None
    """The teacher's likeliest ids and their log-probabilities, where the anchor's estimator is top_k."""
    teacher_top_logprobs_BTK: Tensor | None = None
    extra_metrics: dict[str, float] = field(default_factory=dict)

    @property
    def scored_B(self) -> Tensor:
        return torch.tensor([score is not None for score in self.scores.total])


def build_rollout(
    config: RunConfig,
    coefficient: Coefficient,
    sampled: Sampled,
    states: dict[str, Tensor],
    scores: BlendedScores,
) -> Rollout:
    """The rollout of the sampled completions: rewards with the anchor's part, GAE or group means, normalised.

    `states`: what teacher and policy say of each token, by the names of Rollout's fields; "sampler_logprobs_BT" beside
    them where another engine sampled.
    """
    ppo, anchor, completions = config.ppo, config.anchor, sampled.completions
    width = states["logprobs_BT"].shape[1]
    mask_BT = torch.nn.functional.pad(
        completion_lengths_mask([len(c.token_ids) for c in completions]),
        (0, width - max(len(c.token_ids) for c in completions)),
    ).to(states["logprobs_BT"].device)
    scores_B = torch.tensor([float("nan") if s is None else s for s in scores.total], device=mask_BT.device)
    scored_B = ~scores_B.isnan()
    strengths = coefficient.coefficients([p.task for p in sampled.problems], sampled.step / ppo.num_steps)
    anchor_B = torch.tensor(strengths, device=mask_BT.device)
    rewards_BT = scores_to_rewards(scores_B.nan_to_num(0.0), mask_BT)
    if anchor.placement == "reward":
        kl_BT = states["kl_BT"]
        if anchor.estimator == "k1":
            kl_BT = kl_k1(states["logprobs_BT"], states["teacher_logprobs_BT"])
        rewards_BT = anchored_rewards(rewards_BT, kl_BT, anchor_B, mask_BT)
    last_B = torch.tensor([min(len(c.token_ids), width - 1) for c in completions], device=mask_BT.device)
    cut_B = torch.tensor([c.finish is Finish.LENGTH for c in completions], device=mask_BT.device)
    bootstrap_B = torch.where(cut_B, states["values_BT"].gather(1, last_B[:, None]).squeeze(1), 0.0)
    advantages_BT, returns_BT = gae(rewards_BT, states["values_BT"], mask_BT, bootstrap_B, gamma=ppo.gamma, lam=ppo.lam)
    if ppo.advantage == "group_mean":
        groups_B = torch.arange(len(completions), device=mask_BT.device) // ppo.group_size
        advantages_BT = group_mean_advantages(scores_B, groups_B, mask_BT)
    advantages_BT = _normalized(config, advantages_BT, mask_BT & scored_B[:, None])
    extra_metrics: dict[str, float] = {}
    sampler_logprobs_BT = states.pop("sampler_logprobs_BT", None)
    if sampler_logprobs_BT is not None:
        weights_BT, extra_metrics = _sampler_weights(config, states["logprobs_BT"], sampler_logprobs_BT, mask_BT)
        advantages_BT = advantages_BT * weights_BT
    return Rollout(
        sampled.step,
        sampled.problems,
        sampled.prompt_ids,
        completions,
        sampled.temperature,
        mask_BT=mask_BT,
        scores=scores,
        anchor_B=anchor_B,
        advantages_BT=advantages_BT,
        returns_BT=returns_BT,
        extra_metrics=extra_metrics,
        **states,
    )


def _normalized(config: RunConfig, advantages_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Advantages over all processes, 0 outside the mask (unscored completions included)."""
    reduce = distributed.sum_over_processes
    kind = config.ppo.normalize_advantages
    if kind == "standardize":
        advantages_BT = standardize(advantages_BT, mask_BT, reduce)
    elif kind == "center":
        advantages_BT = center(advantages_BT, mask_BT, reduce)
    return torch.where(mask_BT, advantages_BT, 0.0).float()


def _sampler_weights(
    config: RunConfig, logprobs_BT: Tensor, sampler_logprobs_BT: Tensor, mask_BT: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """(weights of the advantages, how far the sampler's probabilities are from the trainer's over all processes)."""
    lost_BT = sampler_logprobs_BT.isnan()  # the sampler did not tell: no correction there
    sampler_logprobs_BT = torch.where(lost_BT, logprobs_BT, sampler_logprobs_BT)
    cap = config.generation.sampler_weight_cap
    weights_BT = sampler_weights(logprobs_BT, sampler_logprobs_BT, mask_BT, cap=cap)
    difference_BT = (logprobs_BT - sampler_logprobs_BT).abs()
    reduce = distributed.sum_over_processes
    return weights_BT, {
        "sampler/weight": float(moments(weights_BT, mask_BT, reduce)[0]),
        "sampler/logprob_difference": float(moments(difference_BT, mask_BT, reduce)[0]),
    }
