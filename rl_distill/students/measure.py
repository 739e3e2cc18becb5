"""How far a student is from its teacher on token batches: NLL, KL(teacher || student), top-1 agreement.

Assumes causal models with a `base_model` and a linear head. Logits exist for one chunk of tokens at a time.

Shapes: N predicted tokens, n those of a chunk, V the student's vocabulary, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .calibration import TokenBatch

CHUNK_LOGITS = 2**24


@dataclass(frozen=True)
class Comparison:
    """Means per predicted token, in nats."""

    num_tokens: int
    teacher_nll: float
    student_nll: float
    kl: float
    """KL(teacher || student); with a smaller vocabulary, against the teacher's distribution over the kept tokens"""
    top1_agreement: float
    teacher_mass_kept: float
    """the probability that the teacher gives to the student's vocabulary: 1 where it is not cut"""

    @property
    def teacher_perplexity(self) -> float:
        return math.exp(self.teacher_nll)

    @property
    def student_perplexity(self) -> float:
        return math.exp(min(self.student_nll, 700.0))  # a broken cut may exceed what a float holds


@torch.no_grad()
def predicting_states(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """Final hidden states (N, D) at the positions before the scored tokens."""
    hidden_BTD = model.base_model(input_ids=batch.ids_BT.to(model.device), use_cache=False).last_hidden_state
    return hidden_BTD[:, :-1][batch.scored_BT[:, 1:].to(model.device)]


def targets(batch: TokenBatch) -> Tensor:
    """The scored tokens (N,) that those positions predict."""
    return batch.ids_BT[:, 1:][batch.scored_BT[:, 1:]]


@torch.no_grad()
def compare(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    batches: Sequence[TokenBatch],
    kept_tokens: Tensor | None = None,
    teacher_states: Sequence[Tensor] | None = None,
) -> Comparison:
    """Both models on the same tokens. `batches` hold the student's ids; `kept_tokens` maps these to the teacher's.

    `teacher_states`, the teacher's `predicting_states` of every batch, spare it where several students are compared.
    """
    sums = torch.zeros(5, dtype=torch.float64)
    num_tokens = 0
    for place, batch in enumerate(batches):
        seen = batch if kept_tokens is None else batch._replace(ids_BT=kept_tokens[batch.ids_BT])
        theirs_ND = predicting_states(teacher, seen) if teacher_states is None else teacher_states[place]
        states = theirs_ND, predicting_states(student, batch)
        targets_N = targets(batch).to(student.device)
        num_tokens += len(targets_N)
        size = max(1, CHUNK_LOGITS // teacher.config.vocab_size)
        for teacher_nD, student_nD, targets_n in zip(*(x.split(size) for x in (*states, targets_N)), strict=True):
            logq_nV = teacher.lm_head(teacher_nD).log_softmax(-1, dtype=torch.float32)
            logp_nV = student.lm_head(student_nD).log_softmax(-1, dtype=torch.float32)
            sums += _chunk_sums(logq_nV, logp_nV, targets_n, kept_tokens).cpu()
    return Comparison(num_tokens, *(sums / num_tokens).tolist())


def _chunk_sums(logq_nV: Tensor, logp_nV: Tensor, targets_n: Tensor, kept_tokens: Tensor | None) -> Tensor:
    """Sums over tokens of: both NLLs, KL, agreement, and the teacher's mass on the kept tokens."""
    mass_n1 = torch.zeros(len(logq_nV), 1, device=logq_nV.device)
    if kept_tokens is not None:
        logq_nV = logq_nV[:, kept_tokens.to(logq_nV.device)]
        mass_n1 = logq_nV.logsumexp(-1, keepdim=True)
    nlls = [-logprobs_nV.gather(1, targets_n[:, None]).sum() for logprobs_nV in (logq_nV, logp_nV)]
    agreement = (logq_nV.argmax(-1) == logp_nV.argmax(-1)).sum()
    kl = forward_kl(logq_nV - mass_n1, logp_nV).sum()
    return torch.stack([part.double() for part in (*nlls, kl, agreement, mass_n1.exp().sum())])


def forward_kl(logq_nV: Tensor, logp_nV: Tensor) -> Tensor:
    """sum_v q_v * (log q_v - log p_v) per token; q is the teacher's distribution, p the student's."""
    return (logq_nV.exp() * (logq_nV - logp_nV)).sum(-1)


@torch.no_grad()
def mean_nll(model: PreTrainedModel, batches: Sequence[TokenBatch]) -> float:
    """Mean negative log-likelihood per predicted token, in nats."""
    total, num_tokens = 0.0, 0
    for batch in batches:
        hidden_ND, targets_N = predicting_states(model, batch), targets(batch).to(model.device)
        num_tokens += len(targets_N)
        size = max(1, CHUNK_LOGITS // model.config.vocab_size)
        for hidden_nD, targets_n in zip(hidden_ND.split(size), targets_N.split(size), strict=True):
            total += float(
                torch.nn.functional.cross_entropy(model.lm_head(hidden_nD).float(), targets_n, reduction="sum")
            )
    return total / num_tokens
