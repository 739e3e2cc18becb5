"""Log-probabilities, entropy and KL to a teacher, from hidden states, without ever holding tokens x vocabulary.

Assumes the final hidden states (after the last norm) of exactly the positions that predict the targets, flattened to
one dimension: the caller selects real tokens and shifts. Logits live for one chunk of tokens at a time and are
recomputed in backward, except where all of them are small enough to keep.
Knows nothing of models, masks or configs.

Shapes: N tokens, n tokens of one chunk, V vocabulary, D student width, E teacher width.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

KEEP_FLOATS = 2**22
"""Up to this many logits are kept for backward instead of being recomputed (16 MiB per kept tensor)."""
CHUNK_FLOATS = {"cpu": 2**22, "cuda": 2**27}
"""Logits per chunk."""


class TokenStats(NamedTuple):
    """Per token. The first three carry gradients to the student; the teacher's never do."""

    logprobs_N: Tensor
    """log-probability of the target"""
    entropy_N: Tensor
    kl_N: Tensor | None
    """exact KL(student || teacher) over the vocabulary; None without a teacher"""
    teacher_logprobs_N: Tensor | None
    """the teacher's log-probability of the target"""
    teacher_entropy_N: Tensor | None


class _Head(NamedTuple):
    """What turns hidden states into logits; vocabulary already sliced, dtypes already one."""

    hidden_ND: Tensor
    weight_VD: Tensor
    bias_V: Tensor | None

    def logprobs(self, chunk: slice, temperature: float) -> Tensor:
        """log_softmax(logits / temperature) of a chunk of tokens, in at least float32."""
        bias = self.weight_VD.new_zeros(1) if self.bias_V is None else self.bias_V
        beta = 0.0 if self.bias_V is None else 1 / temperature
        logits_nV = torch.addmm(bias, self.hidden_ND[chunk], self.weight_VD.t(), beta=beta, alpha=1 / temperature)
        return logits_nV.log_softmax(dim=-1, dtype=torch.promote_types(logits_nV.dtype, torch.float32))


def token_statistics(
    hidden_ND: Tensor,
    lm_head_weight_VD: Tensor,
    targets_N: Tensor,
    *,
    bias: Tensor | None = None,
    teacher_hidden_NE: Tensor | None = None,
    teacher_weight_VE: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    temperature: float = 1.0,
    chunk_tokens: int | None = None,
    num_tokens_vocab: int | None = None,
) -> TokenStats:
    """TokenStats of `targets_N` under softmax(hidden @ weight.T / temperature), in float32 (float64 from float64).

    The temperature divides the teacher's logits too, so that equal models have KL 0 at every temperature. Both
    vocabularies are cut to their first `num_tokens_vocab` rows, or to the smaller of the two: padding differs between
    model sizes. Products are taken in the autocast dtype, if on, else in that of the hidden states; softmax and sums in
    float32. `chunk_tokens` None picks a size for the device.
    """
    assert hidden_ND.ndim == 2 and targets_N.shape == hidden_ND.shape[:1], (hidden_ND.shape, targets_N.shape)
    assert (teacher_hidden_NE is None) == (teacher_weight_VE is None), "a teacher is hidden states AND a weight"
    num_vocab = lm_head_weight_VD.shape[0] if num_tokens_vocab is None else num_tokens_vocab
    if teacher_weight_VE is not None:
        num_vocab = min(num_vocab, teacher_weight_VE.shape[0])
    student = _head(hidden_ND, lm_head_weight_VD, bias, num_vocab)
    teacher = None
    if teacher_hidden_NE is not None:
        assert teacher_hidden_NE.shape[0] == hidden_ND.shape[0], (teacher_hidden_NE.shape, hidden_ND.shape)
        tensors = (teacher_hidden_NE, teacher_weight_VE, teacher_bias)
        teacher = _head(*(None if x is None else x.detach() for x in tensors), num_vocab)
    if chunk_tokens is None:
        chunk_tokens = max(1, CHUNK_FLOATS.get(hidden_ND.device.type, CHUNK_FLOATS["cuda"]) // num_vocab)
    return TokenStats(*_TokenStatistics.apply(*student, targets_N, teacher, temperature, chunk_tokens))


def _head(hidden: Tensor, weight: Tensor, bias: Tensor | None, num_vocab: int) -> _Head:
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    bias = None if bias is None else bias[:num_vocab].to(dtype)
    return _Head(hidden.to(dtype), weight[:num_vocab].to(dtype), bias)


def _chunks(num_tokens: int, chunk_tokens: int) -> Iterator[slice]:
    return (slice(start, start + chunk_tokens) for start in range(0, max(num_tokens, 1), chunk_tokens))


class _TokenStatistics(torch.autograd.Function):
    """Saves inputs and per-token scalars; d logits is formed chunk by chunk in backward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        teacher: _Head | None,
        temperature: float,
        chunk_tokens: int,
    ) -> tuple[Tensor | None, ...]:
        student = _Head(hidden_ND, weight_VD, bias_V)
        needs_grad = any(ctx.needs_input_grad)
        keep = needs_grad and hidden_ND.shape[0] * weight_VD.shape[0] <= KEEP_FLOATS
        columns, kept = [], []
        for chunk in _chunks(len(hidden_ND), chunk_tokens):
            logp_nV = student.logprobs(chunk, temperature)
            logq_nV = None if teacher is None else teacher.logprobs(chunk, temperature)
            columns.append(_statistics(logp_nV, logq_nV, targets_N[chunk]))
            if keep:
                kept.append((logp_nV, logq_nV))
        outputs = [None if column[0] is None else torch.cat(column) for column in zip(*columns, strict=True)]
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, targets_N, outputs[1], outputs[2])
        ctx.teacher, ctx.temperature, ctx.chunk_tokens, ctx.kept = teacher, temperature, chunk_tokens, kept
        ctx.mark_non_differentiable(*(x for x in outputs[3:] if x is not None))
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, bias_V, targets_N, entropy_N, kl_N = ctx.saved_tensors
        student = _Head(hidden_ND, weight_VD, bias_V)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden_ND) if needs_hidden else None
        grad_weight = (
            torch.zeros_like(weight_VD, dtype=torch.promote_types(weight_VD.dtype, torch.float32))
            if needs_weight
            else None
        )
        grad_bias = torch.zeros_like(grad_weight[:, 0]) if needs_bias else None
        for index, chunk in enumerate(_chunks(len(hidden_ND), ctx.chunk_tokens)):
            if ctx.kept:
                logp_nV, logq_nV = ctx.kept[index]
            else:
                logp_nV = student.logprobs(chunk, ctx.temperature)
                logq_nV = (
                    None if ctx.teacher is None or grads[2] is None else ctx.teacher.logprobs(chunk, ctx.temperature)
                )
            grads_n = [None if g is None else g[chunk, None] for g in grads[:3]]
            kl_n = None if kl_N is None else kl_N[chunk, None]
            d = _grad_logits(logp_nV, logq_nV, targets_N[chunk, None], entropy_N[chunk, None], kl_n, *grads_n)
            d = d.div_(ctx.temperature) if ctx.temperature != 1 else d
            if grad_bias is not None:
                grad_bias += d.sum(dim=0)
            d = d.to(weight_VD.dtype)
            if grad_hidden is not None:
                torch.mm(d, weight_VD, out=grad_hidden[chunk])
            if grad_weight is not None:
                if grad_weight.dtype == d.dtype:
                    grad_weight.addmm_(d.t(), hidden_ND[chunk])
                else:
                    grad_weight += d.t() @ hidden_ND[chunk]
        grad_weight = None if grad_weight is None else grad_weight.to(weight_VD.dtype)
        grad_bias = None if grad_bias is None else grad_bias.to(bias_V.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


def _statistics(logp_nV: Tensor, logq_nV: Tensor | None, targets_n: Tensor) -> tuple[Tensor | None, ...]:
    """The five columns of TokenStats for one chunk."""
    p_nV = logp_nV.exp()
    logprobs_n = logp_nV.gather(1, targets_n[:, None])[:, 0]
    entropy_n = -(p_nV * logp_nV).sum(dim=1)
    if logq_nV is None:
        return logprobs_n, entropy_n, None, None, None
    kl_n = (logp_nV - logq_nV).mul_(p_nV).sum(dim=1)
    teacher_logprobs_n = logq_nV.gather(1, targets_n[:, None])[:, 0]
    teacher_entropy_n = -torch.exp(logq_nV, out=p_nV).mul_(logq_nV).sum(dim=1)
    return logprobs_n, entropy_n, kl_n, teacher_logprobs_n, teacher_entropy_n


def _grad_logits(
    logp_nV: Tensor,
    logq_nV: Tensor | None,
    targets_n1: Tensor,
    entropy_n1: Tensor,
    kl_n1: Tensor | None,
    grad_logprobs_n1: Tensor | None,
    grad_entropy_n1: Tensor | None,
    grad_kl_n1: Tensor | None,
) -> Tensor:
    """d loss / d (logits / temperature), with p the student's and q the teacher's probabilities:

        g_logp * (onehot - p)  -  g_H * p * (log p + H)  +  g_KL * p * (log p - log q - KL)

    = p * (slope_p * log p + slope_q * log q + offset) + g_logp * onehot.
    """
    zero = torch.zeros_like(entropy_n1)
    g_logp, g_entropy, g_kl = (zero if g is None else g for g in (grad_logprobs_n1, grad_entropy_n1, grad_kl_n1))
    offset_n1 = -g_logp - g_entropy * entropy_n1
    if grad_kl_n1 is not None:
        offset_n1 = offset_n1 - g_kl * kl_n1
    d_nV = torch.addcmul(offset_n1, logp_nV, g_kl - g_entropy)
    if grad_kl_n1 is not None:
        d_nV.addcmul_(logq_nV, g_kl, value=-1)
    d_nV.mul_(logp_nV.exp())
    return d_nV.scatter_add_(1, targets_n1, g_logp.to(d_nV.dtype))
