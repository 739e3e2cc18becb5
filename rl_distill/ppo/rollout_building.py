"""From scores, log-probs and values to a rollout with its advantages and returns, as the config names them.

The maths is in advantages.py, masking.py and losses.py; statistics are over all processes. Nothing carries a gradient.

Shapes: B completions, N their tokens (completion after completion), T tokens of the longest, K teacher's scalars.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from reward_models import BlendedScores

from .. import distributed
from ..config import RunConfig
from ..maths.advantages import anchored_rewards, gae, group_mean_advantages, scores_to_rewards
from ..maths.batching import completion_lengths_mask, per_token, to_padded
from ..maths.kl import kl_k1
from ..maths.losses import sampler_weights
from ..maths.masking import center, moments, standardize
from ..teachers import TeacherScores
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

    @property
    def lengths(self) -> list[int]:
        """Tokens of each completion."""
        return [len(completion.token_ids) for completion in self.completions]


@dataclass(frozen=True)
class TokenStates:
    """What policy and teacher say of each sampled token; the policy by the forward that training uses."""

    logprobs_N: Tensor
    entropy_N: Tensor
    kl_N: Tensor
    values_N: Tensor
    teacher: TeacherScores
    teacher_scalars_NK: Tensor
    sampler_logprobs_N: Tensor | None = None
    """The sampler's own log-probabilities, if its distribution differs from the policy's; NaN where it gives none."""


@dataclass
class Rollout(Sampled):
    """Everything that the updates read. Policy and critic learn from the rows that are true in `trained_B`: those that
    were scored, without those cut by length where `ppo.mask_truncated` leaves them out.
    """

    states: TokenStates
    scores: BlendedScores
    anchor_B: Tensor
    trained_B: Tensor
    advantages_N: Tensor
    returns_N: Tensor
    extra_metrics: dict[str, float] = field(default_factory=dict)

    @property
    def anchor_N(self) -> Tensor:
        return per_token(self.anchor_B, self.lengths)

    @property
    def trained_N(self) -> Tensor:
        return per_token(self.trained_B, self.lengths)


def has_one_update(config: RunConfig) -> bool:
    """Whether the update's own log-probabilities, detached, are the old ones, so that no pass is made for those.

    A rollout's only optimizer step begins from the policy that sampled it: the ratio is 1 by definition, with the
    gradient of log p. So it is where nothing before the update reads what that pass gives: no critic, no KL in the
    reward or for an adaptive coefficient, no sampler whose distribution differs. A rollout's log-probabilities, entropy
    and KL are then NaN; the update tells entropy and KL, and `stop_at_kl` looks at them after it.
    """
    ppo, anchor, generation = config.ppo, config.anchor, config.generation
    is_adaptive = anchor.placement == "loss" and anchor.schedule == "adaptive"
    own_sampler = (generation.engine, generation.dtype, generation.top_p) == ("transformers", "student", 1)
    once = ppo.num_epochs * ppo.num_minibatches == 1 and ppo.advantage == "group_mean"
    return once and anchor.placement != "reward" and not is_adaptive and own_sampler


def build_rollout(
    config: RunConfig, coefficient: Coefficient, sampled: Sampled, states: TokenStates, scores: BlendedScores
) -> Rollout:
    """The rollout of the sampled completions: rewards with the anchor's part, GAE or group means, normalised.

    Why in this order: which rows are trained on has to be known before anything is averaged, advantages are normalised
    over the tokens of all processes, and the sampler's weights come last, so that they scale the gradient and not the
    statistics. Example: completions of 3 and 2 tokens with scores 1 and None, as B = 2, T = 3, N = 5: the scores become
    rewards_BT [[0, 0, 1], [0, 0, -]], trained_B [true, false], and advantages_N ends in two zeros.
    """
    device = states.logprobs_N.device
    trained_B = trained_rows(config, sampled, scores).to(device)
    anchor_B, extra_metrics = _anchor(config, coefficient, sampled)
    anchor_B = anchor_B.to(device)
    advantages_N, returns_N = _advantages(config, sampled, states, scores, anchor_B, trained_B)
    advantages_N = _normalized(config, advantages_N, per_token(trained_B, sampled.lengths))
    if states.sampler_logprobs_N is not None:
        weights_N, sampler_metrics = _sampler_weights(config, states.logprobs_N, states.sampler_logprobs_N)
        advantages_N, extra_metrics = advantages_N * weights_N, extra_metrics | sampler_metrics
    return Rollout(
        **vars(sampled),
        states=states,
        scores=scores,
        anchor_B=anchor_B,
        trained_B=trained_B,
        advantages_N=advantages_N,
        returns_N=returns_N,
        extra_metrics=extra_metrics,
    )


def _anchor(config: RunConfig, coefficient: Coefficient, sampled: Sampled) -> tuple[Tensor, dict[str, float]]:
    """(anchor_B, what is logged): the coefficient of each completion's task, 0 on prompts the teacher got wrong."""
    tasks = [problem.task for problem in sampled.problems]
    strengths_B = torch.tensor(coefficient.coefficients(tasks, sampled.step / config.ppo.num_steps))
    if config.anchor.prompts == "all":
        return strengths_B, {}
    anchored_B = torch.tensor([problem.teacher_right is not False for problem in sampled.problems])
    share = moments(anchored_B.float(), torch.ones_like(anchored_B), distributed.sum_over_processes)[0]
    return strengths_B * anchored_B, {"anchor/prompts": float(share)}


def trained_rows(config: RunConfig, sampled: Sampled, scores: BlendedScores) -> Tensor:
    """trained_B: which rows policy and critic learn from (see Rollout)."""
    left_out = [config.ppo.mask_truncated and c.finish is Finish.LENGTH for c in sampled.completions]
    return torch.tensor([s is not None and not out for s, out in zip(scores.total, left_out, strict=True)])


def _advantages(
    config: RunConfig,
    sampled: Sampled,
    states: TokenStates,
    scores: BlendedScores,
    anchor_B: Tensor,
    trained_B: Tensor,
) -> tuple[Tensor, Tensor]:
    """(advantages_N, returns_N); those of rows that are not trained on mean nothing.

    The anchor's penalty is part of the return in both kinds: GAE discounts it token by token, a group's mean is taken
    of score - coefficient * summed k1, the completion's whole return.
    """
    ppo, device = config.ppo, states.logprobs_N.device
    mask_BT = completion_lengths_mask(sampled.lengths).to(device)
    scores_B = torch.tensor([0.0 if s is None else s for s in scores.total], device=device)
    rewards_BT = scores_to_rewards(scores_B.to(states.values_N.dtype), mask_BT)
    if config.anchor.placement == "reward":
        kl_BT = to_padded(kl_k1(states.logprobs_N, states.teacher.logprobs_N), mask_BT)
        rewards_BT = anchored_rewards(rewards_BT, kl_BT, anchor_B, mask_BT)
    values_BT = to_padded(states.values_N, mask_BT)
    advantages_BT, returns_BT = gae(rewards_BT, values_BT, mask_BT, gamma=ppo.gamma, lam=ppo.lam)
    if ppo.advantage == "group_mean":
        groups_B = torch.arange(len(trained_B), device=device) // ppo.group_size
        returns_B = torch.where(trained_B, rewards_BT.sum(1), torch.nan)
        advantages_BT = group_mean_advantages(returns_B, groups_B, mask_BT)
    return advantages_BT[mask_BT], returns_BT[mask_BT]


def _normalized(config: RunConfig, advantages_N: Tensor, trained_N: Tensor) -> Tensor:
    """Advantages over the trained tokens of all processes, 0 at the others."""
    reduce = distributed.sum_over_processes
    kind = config.ppo.normalize_advantages
    if kind == "standardize":
        advantages_N = standardize(advantages_N, trained_N, reduce)
    elif kind == "center":
        advantages_N = center(advantages_N, trained_N, reduce)
    return torch.where(trained_N, advantages_N, 0.0)


def _sampler_weights(
    config: RunConfig, logprobs_N: Tensor, sampler_logprobs_N: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """(weights of the advantages, how far the sampler's probabilities are from the trainer's over all processes)."""
    lost_N = sampler_logprobs_N.isnan()  # the sampler did not tell: no correction there
    sampler_logprobs_N = torch.where(lost_N, logprobs_N, sampler_logprobs_N)
    every_N = torch.ones_like(lost_N)
    weights_N = sampler_weights(logprobs_N, sampler_logprobs_N, every_N, cap=config.generation.sampler_weight_cap)
    difference_N = (logprobs_N - sampler_logprobs_N).abs()
    reduce = distributed.sum_over_processes
    return weights_N, {
        "sampler/weight": float(moments(weights_N, every_N, reduce)[0]),
        "sampler/logprob_difference": float(moments(difference_N, every_N, reduce)[0]),
    }
