"""Soft-target losses between a student and a teacher, exact over the vocabulary, from final hidden states in chunks.

Assumes hidden states (after the last norm) of exactly the positions that predict the targets, flattened to one
dimension. Logits of N x V never exist: a chunk of tokens is computed at a time and recomputed in backward.
Knows nothing of models, masks or settings.

Shapes: N tokens, n tokens of one chunk, V vocabulary, D student width, E teacher width, K ids per token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .kl import log_rest
from .lm_head import HeadWeights, slices

LOGITS_PER_CHUNK = {"cpu": 2**22, "cuda": 2**27}


class DistillationStats(NamedTuple):
    """Per token; both carry gradients to the student, never to the teacher."""

    cross_entropy_N: Tensor
    """-log p(target) at temperature 1"""
    divergence_N: Tensor | None
    """between the two distributions at the given temperature, without the factor T^2; None without a teacher"""


Divergence = Callable[[Tensor, Tensor], Tensor]
"""(student's log-probabilities, teacher's log-probabilities), both n x V -> one number per token"""


def forward_kl(logp_nV: Tensor, logq_nV: Tensor) -> Tensor:
    """KL(teacher || student) = sum q (log q - log p): the classic soft target, mass-covering (Hinton 1503.02531)."""
    q_nV = logq_nV.exp()
    return (q_nV * (logq_nV - logp_nV).masked_fill(q_nV == 0, 0.0)).sum(dim=-1)


def reverse_kl(logp_nV: Tensor, logq_nV: Tensor) -> Tensor:
    """KL(student || teacher) = sum p (log p - log q): mode-seeking (MiniLLM 2306.08543); infinite where only q is 0."""
    return forward_kl(logq_nV, logp_nV)


def total_variation(logp_nV: Tensor, logq_nV: Tensor) -> Tensor:
    """1/2 sum |p - q|, between 0 and 1; its gradient is bounded by construction (Wen et al. 2307.15190)."""
    return 0.5 * (logp_nV.exp() - logq_nV.exp()).abs().sum(dim=-1)


def jensen_shannon(beta: float) -> Divergence:
    """beta KL(q || m) + (1 - beta) KL(p || m) with m = beta q + (1 - beta) p (GKD 2306.13649, eq. 1).

    As in TRL, beta 0 is defined as the forward and beta 1 as the reverse KL, the limits of the quotient by
    beta (1 - beta), which the formula itself would give as 0. Raises ValueError outside [0, 1].
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta of the Jensen-Shannon divergence must lie in [0, 1], not {beta}")
    if beta in (0, 1):
        return forward_kl if beta == 0 else reverse_kl

    def divergence(logp_nV: Tensor, logq_nV: Tensor) -> Tensor:
        logm_nV = torch.logaddexp(logp_nV + math.log1p(-beta), logq_nV + math.log(beta))
        return beta * forward_kl(logm_nV, logq_nV) + (1 - beta) * forward_kl(logm_nV, logp_nV)

    return divergence


def make_divergence(kind: str, beta: float = 0.5) -> Divergence:
    """The divergence by its name: forward_kl, reverse_kl, jsd (with `beta`), tvd. Raises KeyError on another name."""
    named = {"forward_kl": forward_kl, "reverse_kl": reverse_kl, "tvd": total_variation}
    return jensen_shannon(beta) if kind == "jsd" else named[kind]


def distillation_statistics(
    hidden_ND: Tensor,
    lm_head_weight_VD: Tensor,
    targets_N: Tensor,
    divergence: Divergence,
    *,
    bias_V: Tensor | None = None,
    teacher_hidden_NE: Tensor | None = None,
    teacher_weight_VE: HeadWeights | None = None,
    temperature: float = 1.0,
    interpolation: float = 1.0,
    num_tokens_vocab: int | None = None,
    chunk_tokens: int | None = None,
) -> DistillationStats:
    """DistillationStats of every token; both models' logits are divided by `temperature` in the divergence.

    Several teacher weights: the mean of their distributions, with their hidden states side by side. `interpolation`
    below 1 moves the target towards the student: logits (1 - t) * student (detached) + t * teacher (TAID 2501.16937).
    Vocabularies are cut to the first `num_tokens_vocab` rows, or to the smallest of all: padding differs between sizes.
    Softmax and sums run in at least float32.
    """
    assert hidden_ND.ndim == 2, hidden_ND.shape
    assert targets_N.shape == hidden_ND.shape[:1], (hidden_ND.shape, targets_N.shape)
    assert (teacher_hidden_NE is None) == (teacher_weight_VE is None), "a teacher is hidden states AND a weight"
    weights = [teacher_weight_VE] if isinstance(teacher_weight_VE, Tensor) else [*(teacher_weight_VE or ())]
    num_vocab = min([len(lm_head_weight_VD), *map(len, weights), num_tokens_vocab or len(lm_head_weight_VD)])
    teacher = _TeacherChunks(teacher_hidden_NE, [weight[:num_vocab] for weight in weights], temperature, interpolation)
    weight_VD, bias_V = lm_head_weight_VD[:num_vocab], None if bias_V is None else bias_V[:num_vocab]
    if chunk_tokens is None:
        chunk_tokens = max(16, LOGITS_PER_CHUNK.get(hidden_ND.device.type, 2**27) // num_vocab)

    def statistics(
        hidden_nD: Tensor, weight: Tensor, bias: Tensor | None, chunk: slice
    ) -> tuple[Tensor, Tensor | None]:
        logits_nV = _logits(hidden_nD, weight, bias)
        logp_nV = logits_nV.log_softmax(dim=-1)
        cross_entropy_n = -logp_nV.gather(1, targets_N[chunk, None])[:, 0]
        if teacher.hidden_NE is None:
            return cross_entropy_n, None
        if temperature != 1:
            logp_nV = (logits_nV / temperature).log_softmax(dim=-1)
        return cross_entropy_n, divergence(logp_nV, teacher.logprobs(chunk, logits_nV.detach()))

    with torch.autocast(hidden_ND.device.type, enabled=False):  # logits rounded to bf16 would double a small KL
        parts = [
            checkpoint(statistics, hidden_ND[chunk], weight_VD, bias_V, chunk, use_reentrant=False)
            for chunk in slices(len(targets_N), chunk_tokens)
        ]
    cross_entropies, divergences = zip(*parts, strict=True)
    return DistillationStats(torch.cat(cross_entropies), None if teacher.hidden_NE is None else torch.cat(divergences))


class _TeacherChunks(NamedTuple):
    hidden_NE: Tensor | None
    weights: Sequence[Tensor]
    temperature: float
    interpolation: float

    @torch.no_grad()
    def logprobs(self, chunk: slice, student_logits_nV: Tensor) -> Tensor:
        """The target's log-probabilities of a chunk of tokens."""
        assert self.hidden_NE is not None
        states = self.hidden_NE[chunk].split([weight.shape[1] for weight in self.weights], dim=1)
        members = [
            _logits(state, weight) / self.temperature for state, weight in zip(states, self.weights, strict=True)
        ]
        if len(members) == 1:
            logits_nV = members[0]
        else:
            logits_nV = torch.stack([m.log_softmax(-1) for m in members]).logsumexp(0)
        if self.interpolation < 1:
            logits_nV = torch.lerp(student_logits_nV / self.temperature, logits_nV, self.interpolation)
        return logits_nV.log_softmax(dim=-1)


def top_k_divergence(divergence: Divergence, logprobs_NK: Tensor, teacher_logprobs_NK: Tensor) -> Tensor:
    """`divergence` over K + 1 outcomes: the K ids that both arguments are about, and "any other" as one.

    A lower bound of the exact forward or reverse KL (merging outcomes loses information), exact when the rest is empty.
    """
    assert logprobs_NK.shape == teacher_logprobs_NK.shape, (logprobs_NK.shape, teacher_logprobs_NK.shape)
    with_rest = [torch.cat([x, log_rest(x)], dim=-1) for x in (logprobs_NK, teacher_logprobs_NK)]
    return divergence(*with_rest)


def sampled_forward_kl(logprobs_NS: Tensor, teacher_entropy_N: Tensor) -> Tensor:
    """-1/S sum_s log p(v_s) - H(q) for ids v_s drawn from the teacher's q: KL(teacher || student) without bias.

    Unlike a truncated top k, value and gradient are right on average (Sparse Logit Sampling, arXiv 2503.16870, with
    proposal q). May be negative for one token; the variance falls as 1/S.
    """
    assert logprobs_NS.shape[:1] == teacher_entropy_N.shape, (logprobs_NS.shape, teacher_entropy_N.shape)
    return -logprobs_NS.mean(dim=-1) - teacher_entropy_N


def _logits(states_nD: Tensor, head_VD: Tensor, bias_V: Tensor | None = None) -> Tensor:
    """In the wider dtype of states and head, and in at least float32."""
    dtype = torch.promote_types(torch.promote_types(states_nD.dtype, head_VD.dtype), torch.float32)
    bias_V = None if bias_V is None else bias_V.to(dtype)
    return torch.nn.functional.linear(states_nD.to(dtype), head_VD.to(dtype), bias_V)
