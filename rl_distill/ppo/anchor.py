"""The pull towards the teacher as the config names it: its strength over a run, and its KL per token in the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..config import RunConfig
from ..maths.kl import kl_k1, kl_k2, kl_k3, top_k_kl
from ..models.actor_critic import ActorCriticOutput
from .coefficients import (
    AdaptiveKLController,
    AnnealedCoefficient,
    Coefficient,
    EvidenceCoefficient,
    FixedCoefficient,
    SuccessCount,
)

ESTIMATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


def make_coefficient(config: RunConfig, teacher_success: dict[str, SuccessCount]) -> Coefficient:
    """The anchor's strength by its name in the config; `teacher_success` per task is what `evidence` compares with."""
    anchor = config.anchor
    if anchor.placement == "none":
        return FixedCoefficient(0.0)
    if anchor.schedule == "anneal":
        return AnnealedCoefficient(anchor.coef, anchor.coef_end, begin=anchor.anneal_start, finish=anchor.anneal_end)
    if anchor.schedule == "adaptive":
        return AdaptiveKLController(anchor.coef, anchor.target_kl, anchor.horizon)
    if anchor.schedule == "evidence":
        return EvidenceCoefficient(
            teacher_success,
            floor=anchor.evidence_floor,
            ceiling=anchor.coef,
            scale=anchor.evidence_scale,
            decay=anchor.evidence_decay,
        )
    return FixedCoefficient(anchor.coef)


def follows_evidence(config: RunConfig) -> bool:
    """Whether the anchor needs the teacher's success rates."""
    return config.anchor.placement != "none" and config.anchor.schedule == "evidence"


def reads_exact_kl(config: RunConfig) -> bool:
    """Whether a rollout's KL to the teacher is taken over the whole vocabulary. It is an estimate from the sampled
    tokens (k1) where the anchor takes one too, and where there is no anchor: then it is only watched.
    """
    return config.anchor.placement != "none" and config.anchor.estimator not in ESTIMATORS


def watched_kl(output: ActorCriticOutput, inputs: dict[str, Any]) -> Tensor:
    """KL(student || teacher) per token as a rollout reports it: exact where that was formed, else k1."""
    return kl_k1(output.logprobs_N, inputs["teacher_logprobs_N"]) if output.kl_N is None else output.kl_N


def anchor_kl(estimator: str, output: ActorCriticOutput, inputs: dict[str, Any]) -> Tensor:
    """KL(student || teacher) per token with its gradient, by the estimator's name; raises KeyError on another name."""
    if estimator == "exact":
        assert output.kl_N is not None
        return output.kl_N
    if estimator == "top_k":
        assert output.top_logprobs_NK is not None
        return top_k_kl(output.top_logprobs_NK, inputs["teacher_top_logprobs_NK"])
    return ESTIMATORS[estimator](output.logprobs_N, inputs["teacher_logprobs_N"])
