"""Log-probabilities, entropy and KL to a teacher, from hidden states, without ever holding tokens x vocabulary.

Assumes the final hidden states (after the last norm) of exactly the positions that predict the targets, flattened to
one dimension: the caller selects real tokens and shifts. Logits live for one chunk of tokens at a time and are
recomputed in backward, except where all of them are few enough to keep.
Knows nothing of models, masks or configs.

Shapes: N tokens, n tokens of one chunk, V vocabulary, D student width, E teacher width, K targets per token.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .lm_head import Head, HeadWeights, Mixture, add_product, slices
from .tiled_logprobs import TiledStatistics
from .tiled_logprobs import forward as tiled_forward

KEEP_FLOATS = 2**23
"""Up to this many logits (and twice or three times that in all) are kept for backward, which saves 10-15 % of time."""
CHUNKS = {"cpu": (2**20, 64, 1024), "cuda": (2**27, 512, 16384)}
"""Logits per chunk, and the fewest and most tokens, which come first. On a CPU a chunk should fit the cache, but the
product with the weight needs some 64 rows to be efficient: where they do not fit, the vocabulary is tiled as well."""


class TokenStats(NamedTuple):
    """Per token. The first three carry gradients to the student; the teacher's never do."""

    logprobs_N: Tensor
    """log-probability of the target, in the shape of the targets"""
    entropy_N: Tensor
    kl_N: Tensor | None
    """exact KL(student || teacher) over the vocabulary; None without a teacher"""
    teacher_logprobs_N: Tensor | None
    """the teacher's log-probability of the target"""
    teacher_entropy_N: Tensor | None


def token_statistics(
    hidden_ND: Tensor,
    lm_head_weight_VD: Tensor,
    targets_N: Tensor,
    *,
    bias: Tensor | None = None,
    teacher_hidden_NE: Tensor | None = None,
    teacher_weight_VE: HeadWeights | None = None,
    teacher_bias: Tensor | None = None,
    temperature: float = 1.0,
    chunk_tokens: int | None = None,
    num_tokens_vocab: int | None = None,
) -> TokenStats:
    """TokenStats of `targets_N` under softmax((hidden @ weight.T + bias) / temperature).

    Targets may be N x K, several ids per token (a teacher's top k): their log-probabilities come back as N x K.
    The temperature divides the teacher's logits too, so that equal models have KL 0 at every temperature. Both
    vocabularies are cut to their first `num_tokens_vocab` rows, or to the smaller of the two: padding differs between
    model sizes. Products are taken in the wider dtype of hidden states and weight, also under autocast (bf16 logits of
    16 are off by up to 0.06); softmax and sums in float32, or float64 if those are. Without gradients nothing is kept:
    score a teacher alone by passing it as the student under no_grad().

    Several teacher weights: the teacher is the mean of their distributions, and `teacher_hidden_NE` holds their hidden
    states side by side, in the order of the weights.

    Why one function for all of it: log-probability, entropy and KL need the same logits, the largest tensor of a step,
    which are computed once here, in chunks. Why three ways through it: a CPU tiles large vocabularies as well, a
    mixture of teachers is normalised over whole rows, and without gradients nothing is kept. Example: hidden states
    (512, 896), a head of (151936, 896) and 512 targets give tensors of 512; the logits, 311 MB in float32, never exist
    together.
    """
    assert hidden_ND.ndim == 2, hidden_ND.shape
    assert len(targets_N) == len(hidden_ND), (hidden_ND.shape, targets_N.shape)
    assert (teacher_hidden_NE is None) == (teacher_weight_VE is None), "a teacher is hidden states AND a weight"
    teacher_weights = [teacher_weight_VE] if isinstance(teacher_weight_VE, Tensor) else [*(teacher_weight_VE or ())]
    sizes = [len(weight) for weight in (lm_head_weight_VD, *teacher_weights)]
    num_vocab = min(sizes if num_tokens_vocab is None else [*sizes, num_tokens_vocab])
    student = _head(hidden_ND, lm_head_weight_VD, bias, num_vocab)
    teacher = None
    if teacher_hidden_NE is not None:
        assert len(teacher_hidden_NE) == len(hidden_ND), (teacher_hidden_NE.shape, hidden_ND.shape)
        teacher = _teacher(teacher_hidden_NE, teacher_weights, teacher_bias, num_vocab)
    budget, fewest, most = CHUNKS.get(hidden_ND.device.type, CHUNKS["cuda"])
    tiled = chunk_tokens is None and hidden_ND.device.type == "cpu" and budget // num_vocab < fewest
    if chunk_tokens is None:
        chunk_tokens = min(max(budget // num_vocab, fewest), most)

    targets_NK = targets_N if targets_N.ndim == 2 else targets_N[:, None]
    trains = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in student)
    if tiled and not isinstance(teacher, Mixture):  # which is normalised over whole rows
        if trains:
            stats = TokenStats(*TiledStatistics.apply(*student, targets_NK, teacher, temperature))
        else:
            with torch.no_grad():
                stats = TokenStats(*tiled_forward(student, teacher, targets_NK, temperature)[:5])
    elif trains:
        stats = TokenStats(*_TokenStatistics.apply(*student, targets_NK, teacher, temperature, chunk_tokens))
    else:
        stats = _forward(student, teacher, targets_NK, temperature, chunk_tokens, keep=False)[0]
    teacher_logprobs = stats.teacher_logprobs_N
    return stats._replace(
        logprobs_N=stats.logprobs_N.view_as(targets_N),
        teacher_logprobs_N=None if teacher_logprobs is None else teacher_logprobs.view_as(targets_N),
    )


def _head(hidden: Tensor, weight: Tensor, bias: Tensor | None, num_vocab: int) -> Head:
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    if num_vocab < len(weight):  # a whole weight is not sliced: the gradient of a slice is one more copy of it
        weight, bias = weight[:num_vocab], None if bias is None else bias[:num_vocab]
    return Head(hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))


@torch.no_grad()
def _teacher(hidden_NE: Tensor, weights: Sequence[Tensor], bias: Tensor | None, num_vocab: int) -> Head | Mixture:
    if len(weights) == 1:
        return _head(hidden_NE, weights[0], bias, num_vocab)
    assert bias is None, "of several teachers none may have a bias"
    return Mixture.of(hidden_NE, weights, lambda x, weight: _head(x, weight, None, num_vocab))


class _Chunk(NamedTuple):
    """The tensors of n x V that both directions need."""

    logp_nV: Tensor
    p_nV: Tensor
    log_ratio_nV: Tensor | None
    """log p - log q, with q the teacher's probabilities"""


class _LogSumExps(NamedTuple):
    student_N1: Tensor
    teacher_N1: Tensor | None


def _normalize(logits_nV: Tensor, p_nV: Tensor) -> Tensor:
    """logsumexp_n1; logits become log-probabilities in place, the probabilities are written into `p_nV`.

    One exponential per logit: logsumexp = largest logit - log of its probability, which is at least 1/V.
    """
    torch.softmax(logits_nV, dim=-1, out=p_nV)
    logsumexp_n1 = logits_nV.amax(dim=-1, keepdim=True) - p_nV.amax(dim=-1, keepdim=True).log()
    logits_nV.sub_(logsumexp_n1)
    return logsumexp_n1


# Why in chunks and in place: B x T x V logits of a batch are never in memory together, and a chunk's buffer is reused
# for log p, p and log p - log q in turn (hence the order of these lines: log q is read before it is overwritten). With
# `keep`, small vocabularies only, every chunk has buffers of its own and backward need not build them again.
def _forward(
    student: Head, teacher: Head | Mixture | None, targets_NK: Tensor, temperature: float, chunk_tokens: int, keep: bool
) -> tuple[TokenStats, _LogSumExps, list[Tensor | None]]:
    """(stats, what backward needs to normalise again, the tensors of all _Chunks in turn if they are to be kept)."""
    columns: list[tuple[Tensor | None, ...]] = []
    kept: list[Tensor | None] = []
    buffers: list[Tensor] = []
    for chunk in slices(len(targets_NK), chunk_tokens):
        if keep or not buffers:
            buffers = student.buffers(chunk.stop - chunk.start, 2 if teacher is None else 3)
        logp_nV, p_nV, *rest = (buffer[: chunk.stop - chunk.start] for buffer in buffers)
        targets_nK = targets_NK[chunk]
        log_ratio_nV = kl_n = teacher_logprobs_nK = teacher_entropy_n = teacher_logsumexp_n1 = None
        if teacher is not None:
            logq_nV = teacher.logits(chunk, temperature, rest[0])
            teacher_logsumexp_n1 = _normalize(logq_nV, p_nV)
            teacher_logprobs_nK = logq_nV.gather(1, targets_nK)
            teacher_entropy_n = -p_nV.mul_(logq_nV).sum(dim=1)
        logsumexp_n1 = _normalize(student.logits(chunk, temperature, logp_nV), p_nV)
        logprobs_nK = logp_nV.gather(1, targets_nK)
        if teacher is not None:
            log_ratio_nV = torch.sub(logp_nV, logq_nV, out=logq_nV)
            kl_n = torch.mul(p_nV, log_ratio_nV, out=None if keep else log_ratio_nV).sum(dim=1)
        entropy_n = -torch.mul(p_nV, logp_nV, out=None if keep else p_nV).sum(dim=1)
        stats = TokenStats(logprobs_nK, entropy_n, kl_n, teacher_logprobs_nK, teacher_entropy_n)
        columns.append((*stats, logsumexp_n1, teacher_logsumexp_n1))
        kept += _Chunk(logp_nV, p_nV, log_ratio_nV) if keep else ()
    joined: list[Any] = [None if column[0] is None else torch.cat(column) for column in zip(*columns, strict=True)]
    return TokenStats(*joined[:5]), _LogSumExps(*joined[5:]), kept


class _TokenStatistics(torch.autograd.Function):
    """Saves inputs and per-token numbers; the gradient of the logits is formed chunk by chunk in backward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_NK: Tensor,
        teacher: Head | Mixture | None,
        temperature: float,
        chunk_tokens: int,
    ) -> tuple[Tensor | None, ...]:
        keep = len(hidden_ND) * len(weight_VD) <= KEEP_FLOATS
        student = Head(hidden_ND, weight_VD, bias_V)
        stats, logsumexps, kept = _forward(student, teacher, targets_NK, temperature, chunk_tokens, keep)
        ctx.save_for_backward(*student, targets_NK, stats.entropy_N, stats.kl_N, *logsumexps, *kept)
        ctx.teacher, ctx.temperature, ctx.chunk_tokens = teacher, temperature, chunk_tokens
        ctx.mark_non_differentiable(*(x for x in stats[3:] if x is not None))
        ctx.set_materialize_grads(False)
        return tuple(stats)

    # Why by hand: the three outputs share p, log p and log p - log q, which autograd would build and keep once per
    # output. Their gradients are all p times something plus a onehot, so one n x V buffer holds the sum; its product
    # with the head is the only large one. Example: n = 256 rows of V = 320 logits give d_hidden (256 x D).
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """With p the student's and q the teacher's probabilities, d loss / d (logits / temperature) is

            g_logp * (onehot - p)  -  g_H * p * (log p + H)  +  g_KL * p * (log p - log q - KL)

        = p * (slope * log p + ratio_slope * (log p - log q) + offset)  +  g_logp * onehot.
        """
        student = Head(*ctx.saved_tensors[:3])
        targets_NK, entropy_N, kl_N, student_N1, teacher_N1, *kept = ctx.saved_tensors[3:]
        logsumexps = _LogSumExps(student_N1, teacher_N1)
        g_logp_NK, g_entropy_N, g_kl_N = (None if g is None else g / ctx.temperature for g in grads[:3])
        offset_N = torch.zeros_like(entropy_N) if g_logp_NK is None else -g_logp_NK.sum(dim=1)
        offset_N = offset_N if g_entropy_N is None else offset_N - g_entropy_N * entropy_N
        offset_N = offset_N if g_kl_N is None else offset_N - g_kl_N * kl_N

        teacher = None if g_kl_N is None else ctx.teacher
        buffers = [] if kept else student.buffers(min(ctx.chunk_tokens, len(targets_NK)), 2 if teacher is None else 3)
        gradients = _Gradients(student, *ctx.needs_input_grad[:3])
        for index, chunk in enumerate(slices(len(targets_NK), ctx.chunk_tokens)):
            if kept:
                parts = _Chunk(*kept[3 * index : 3 * index + 3])
            else:
                parts = _rebuild(student, teacher, chunk, ctx.temperature, logsumexps, buffers)
            g_entropy_n1, g_kl_n1 = (None if g is None else g[chunk, None] for g in (g_entropy_N, g_kl_N))
            d_logits_nV = _grad_logits(parts, offset_N[chunk, None], g_entropy_n1, g_kl_n1, in_place=not kept)
            if g_logp_NK is not None:
                d_logits_nV.scatter_add_(1, targets_NK[chunk], g_logp_NK[chunk])
            gradients.add(chunk, d_logits_nV)
        return *gradients.in_own_dtypes(), None, None, None, None


def _rebuild(
    student: Head,
    teacher: Head | Mixture | None,
    chunk: slice,
    temperature: float,
    logsumexps: _LogSumExps,
    buffers: Sequence[Tensor],
) -> _Chunk:
    """What forward computed for this chunk, once more, into the buffers."""
    logp_nV, p_nV, *rest = (buffer[: chunk.stop - chunk.start] for buffer in buffers)
    torch.softmax(student.logits(chunk, temperature, logp_nV), dim=-1, out=p_nV)
    logp_nV.sub_(logsumexps.student_N1[chunk])
    if teacher is None or logsumexps.teacher_N1 is None:
        return _Chunk(logp_nV, p_nV, None)
    logq_nV = teacher.logits(chunk, temperature, rest[0]).sub_(logsumexps.teacher_N1[chunk])
    return _Chunk(logp_nV, p_nV, torch.sub(logp_nV, logq_nV, out=logq_nV))


def _grad_logits(
    parts: _Chunk, offset_n1: Tensor, g_entropy_n1: Tensor | None, g_kl_n1: Tensor | None, *, in_place: bool
) -> Tensor:
    """p * (-g_H * log p + g_KL * (log p - log q) + offset); overwrites `parts` if in place."""
    logp_nV, p_nV, log_ratio_nV = parts
    terms = [(logp_nV, None if g_entropy_n1 is None else -g_entropy_n1), (log_ratio_nV, g_kl_n1)]
    scaled = [
        torch.mul(x, slope, out=x if in_place else None) for x, slope in terms if x is not None and slope is not None
    ]
    if not scaled:
        return torch.mul(p_nV, offset_n1, out=p_nV if in_place else None)
    total_nV = scaled[0] if len(scaled) == 1 else scaled[0].add_(scaled[1])
    return total_nV.add_(offset_n1).mul_(p_nV)


class _Gradients:
    """Sums of the student's gradients over chunks; those of weight and bias in at least float32."""

    def __init__(self, student: Head, needs_hidden: bool, needs_weight: bool, needs_bias: bool) -> None:
        self.student = student
        dtype = torch.promote_types(student.weight_VD.dtype, torch.float32)
        self.hidden_ND = torch.empty_like(student.hidden_ND) if needs_hidden else None
        self.weight_VD = torch.zeros_like(student.weight_VD, dtype=dtype) if needs_weight else None
        self.bias_V = (
            torch.zeros_like(student.bias_V, dtype=dtype) if needs_bias and student.bias_V is not None else None
        )

    def add(self, chunk: slice, d_logits_nV: Tensor) -> None:
        if self.bias_V is not None:
            self.bias_V += d_logits_nV.sum(dim=0)
        d_nV = d_logits_nV.to(self.student.weight_VD.dtype)
        if self.hidden_ND is not None:
            torch.mm(d_nV, self.student.weight_VD, out=self.hidden_ND[chunk])
        if self.weight_VD is not None:
            add_product(self.weight_VD, d_nV.t(), self.student.hidden_ND[chunk])

    def in_own_dtypes(self) -> list[Tensor | None]:
        dtype = self.student.weight_VD.dtype
        return [None if x is None else x.to(dtype) for x in (self.hidden_ND, self.weight_VD, self.bias_V)]
