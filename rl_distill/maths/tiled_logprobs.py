"""token_statistics for a CPU and a vocabulary so large that one row of logits per token outgrows the cache.

Logits live for one tile of tokens x vocabulary at a time, in both directions; the softmax is summed up over the tiles
(Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"). Same numbers as the chunks of logprobs.py,
which takes over where a tile would hold whole rows, and on GPUs.

Shapes: N tokens, n and v tokens and vocabulary of one tile, D student width, K targets per token.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .lm_head import Head, add_product, slices

TILE_TOKENS, TILE_VOCABULARY = 512, 1024
"""Measured best at V = 151,936, D = 64 on a core with 1 MiB of second-level cache."""


class _RunningSoftmax:
    """Sums over the tiles seen so far of exp(z - top) and of exp(z - top) * x for up to two x; each n x 1."""

    def __init__(self, like_n1: Tensor) -> None:
        self.top_n1 = torch.full_like(like_n1, -torch.inf)
        self.total_n1 = torch.zeros_like(like_n1)
        self.weighted_n1 = [torch.zeros_like(like_n1), torch.zeros_like(like_n1)]

    def add(self, z_nv: Tensor, out_nv: Tensor) -> Tensor:
        """exp(z - top) of the tile, written into `out_nv`; the sums so far are rescaled to the new top."""
        top_n1 = torch.maximum(self.top_n1, z_nv.amax(dim=1, keepdim=True))
        decay_n1 = (self.top_n1 - top_n1).exp_()
        exp_nv = torch.sub(z_nv, top_n1, out=out_nv).exp_()
        self.total_n1 = self.total_n1 * decay_n1 + exp_nv.sum(dim=1, keepdim=True)
        self.weighted_n1 = [x_n1 * decay_n1 for x_n1 in self.weighted_n1]
        self.top_n1 = top_n1
        return exp_nv

    def weigh(self, which: int, product_nv: Tensor) -> None:
        self.weighted_n1[which] = self.weighted_n1[which] + product_nv.sum(dim=1, keepdim=True)

    def logsumexp(self) -> Tensor:
        return self.top_n1 + self.total_n1.log()


class Columns(NamedTuple):
    """Per token; the first five are those of logprobs.TokenStats. The teacher's are None where there is none."""

    logprobs_NK: Tensor
    entropy_N: Tensor
    kl_N: Tensor | None
    teacher_logprobs_NK: Tensor | None
    teacher_entropy_N: Tensor | None
    logsumexp_N1: Tensor
    teacher_logsumexp_N1: Tensor | None


def forward(student: Head, teacher: Head | None, targets_NK: Tensor, temperature: float) -> Columns:
    """Columns of all tokens, without gradients."""
    buffers = student.buffers(min(TILE_TOKENS, len(targets_NK)), 4, TILE_VOCABULARY)
    blocks = [_forward_block(student, teacher, targets_NK, temperature, chunk, buffers) for chunk in _blocks(student)]
    joined: list[Any] = [None if column[0] is None else torch.cat(column) for column in zip(*blocks, strict=True)]
    return Columns(*joined)


def _blocks(student: Head) -> Iterator[slice]:
    return slices(len(student.hidden_ND), TILE_TOKENS)


def _forward_block(
    student: Head, teacher: Head | None, targets_NK: Tensor, temperature: float, chunk: slice, buffers: list[Tensor]
) -> Columns:
    num_vocab, targets_nK = len(student.weight_VD), targets_NK[chunk]
    chosen_nK = buffers[0].new_zeros(targets_nK.shape)
    teacher_chosen_nK = torch.zeros_like(chosen_nK)
    sums, teacher_sums = (_RunningSoftmax(buffers[0][: len(targets_nK), :1]) for _ in range(2))
    for tile in slices(num_vocab, TILE_VOCABULARY):
        z_nv, q_nv, exp_nv, product_nv = _views(buffers, len(targets_nK), tile)
        student.part(tile).logits(chunk, temperature, z_nv)
        _pick(chosen_nK, z_nv, targets_nK, tile)
        sums.add(z_nv, exp_nv)
        sums.weigh(0, torch.mul(exp_nv, z_nv, out=product_nv))
        if teacher is None:
            continue
        teacher.part(tile).logits(chunk, temperature, q_nv)
        _pick(teacher_chosen_nK, q_nv, targets_nK, tile)
        sums.weigh(1, torch.sub(z_nv, q_nv, out=z_nv).mul_(exp_nv))
        teacher_sums.add(q_nv, exp_nv)
        teacher_sums.weigh(0, torch.mul(exp_nv, q_nv, out=product_nv))
    logsumexp_n1 = sums.logsumexp()
    entropy_n = (logsumexp_n1 - sums.weighted_n1[0] / sums.total_n1)[:, 0]
    if teacher is None:
        return Columns(chosen_nK - logsumexp_n1, entropy_n, None, None, None, logsumexp_n1, None)
    teacher_n1 = teacher_sums.logsumexp()
    kl_n = (sums.weighted_n1[1] / sums.total_n1 - logsumexp_n1 + teacher_n1)[:, 0]
    teacher_entropy_n = (teacher_n1 - teacher_sums.weighted_n1[0] / teacher_sums.total_n1)[:, 0]
    logprobs_nK, teacher_logprobs_nK = chosen_nK - logsumexp_n1, teacher_chosen_nK - teacher_n1
    return Columns(logprobs_nK, entropy_n, kl_n, teacher_logprobs_nK, teacher_entropy_n, logsumexp_n1, teacher_n1)


def _views(buffers: list[Tensor], num_rows: int, tile: slice) -> list[Tensor]:
    """The buffers as contiguous tensors of num_rows x the tile's width."""
    width = tile.stop - tile.start
    return [buffer.view(-1)[: num_rows * width].view(num_rows, width) for buffer in buffers]


def _pick(chosen_nK: Tensor, z_nv: Tensor, targets_nK: Tensor, tile: slice) -> None:
    """Copies the logits of those targets that lie in this tile."""
    inside_nK = (targets_nK >= tile.start) & (targets_nK < tile.stop)
    rows, places = inside_nK.nonzero(as_tuple=True)
    chosen_nK[rows, places] = z_nv[rows, targets_nK[rows, places] - tile.start]


class TiledStatistics(torch.autograd.Function):
    """The first five Columns with gradients to the student's hidden states, weight and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        targets_NK: Tensor,
        teacher: Head | None,
        temperature: float,
    ) -> tuple[Tensor | None, ...]:
        student = Head(hidden_ND, weight_VD, bias_V)
        columns = forward(student, teacher, targets_NK, temperature)
        ctx.save_for_backward(*student, targets_NK, columns.entropy_N, columns.kl_N, *columns[5:])
        ctx.teacher, ctx.temperature = teacher, temperature
        ctx.mark_non_differentiable(*(x for x in columns[3:5] if x is not None))
        ctx.set_materialize_grads(False)
        return tuple(columns[:5])

    # Why so: autograd would keep every tile of N x V logits for the backward pass. Two passes over tiles, with only
    # numbers per token kept in between, cost one more product with the head and no memory of that size. For N = 4,096
    # tokens and V = 150,000 ids: three buffers of 512 x 1,024 numbers in place of 2.5 GB of float32 logits.
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """With p = exp(z - logsumexp): p * (ratio slopes and offset) + onehot, as logprobs._TokenStatistics.backward:

        d loss / d z = p * (-g_H * (z - L + H) + g_KL * (z - q - L + L_q - KL) - sum g_logp)  +  g_logp * onehot
        """
        student = Head(*ctx.saved_tensors[:3])
        targets_NK, entropy_N, kl_N, logsumexp_N1, teacher_N1 = ctx.saved_tensors[3:]
        g_logp_NK, g_entropy_N, g_kl_N = (None if g is None else g / ctx.temperature for g in grads[:3])
        teacher = None if g_kl_N is None else ctx.teacher
        offset_N = torch.zeros_like(entropy_N) if g_logp_NK is None else -g_logp_NK.sum(dim=1)
        if g_entropy_N is not None:
            offset_N = offset_N - g_entropy_N * (entropy_N - logsumexp_N1[:, 0])
        if g_kl_N is not None:
            offset_N = offset_N - g_kl_N * (kl_N + logsumexp_N1[:, 0] - teacher_N1[:, 0])

        sums_dtype = torch.promote_types(student.weight_VD.dtype, torch.float32)
        needed = ctx.needs_input_grad
        d_hidden = torch.zeros_like(student.hidden_ND, dtype=sums_dtype) if needed[0] else None
        d_weight = torch.zeros_like(student.weight_VD, dtype=sums_dtype) if needed[1] else None
        d_bias = (
            torch.zeros_like(student.bias_V, dtype=sums_dtype) if needed[2] and student.bias_V is not None else None
        )
        buffers = student.buffers(min(TILE_TOKENS, len(targets_NK)), 3, TILE_VOCABULARY)
        for chunk in _blocks(student):
            slopes = [None if g is None else g[chunk, None] for g in (g_entropy_N, g_kl_N)]
            for tile in slices(len(student.weight_VD), TILE_VOCABULARY):
                z_nv, slope_nv, q_nv = _views(buffers, chunk.stop - chunk.start, tile)
                student.part(tile).logits(chunk, ctx.temperature, z_nv)
                _slopes(z_nv, teacher, chunk, tile, ctx.temperature, slopes, slope_nv, q_nv)
                d_nv = z_nv.sub_(logsumexp_N1[chunk]).exp_().mul_(slope_nv.add_(offset_N[chunk, None]))
                if g_logp_NK is not None:
                    _scatter(d_nv, g_logp_NK[chunk], targets_NK[chunk], tile)
                if d_bias is not None:
                    d_bias[tile] += d_nv.sum(dim=0)
                factor_nv = d_nv.to(student.weight_VD.dtype)
                if d_hidden is not None:
                    add_product(d_hidden[chunk], factor_nv, student.weight_VD[tile])
                if d_weight is not None:
                    add_product(d_weight[tile], factor_nv.t(), student.hidden_ND[chunk])
        own = [None if d is None else d.to(student.weight_VD.dtype) for d in (d_hidden, d_weight, d_bias)]
        return *own, None, None, None


def _slopes(
    z_nv: Tensor,
    teacher: Head | None,
    chunk: slice,
    tile: slice,
    temperature: float,
    slopes: list[Tensor | None],
    out_nv: Tensor,
    q_nv: Tensor,
) -> None:
    """-g_H * z + g_KL * (z - q), written into `out_nv`."""
    g_entropy_n1, g_kl_n1 = slopes
    out_nv.zero_() if g_entropy_n1 is None else torch.mul(z_nv, -g_entropy_n1, out=out_nv)
    if teacher is not None and g_kl_n1 is not None:
        teacher.part(tile).logits(chunk, temperature, q_nv)
        out_nv.add_(torch.sub(z_nv, q_nv, out=q_nv).mul_(g_kl_n1))


def _scatter(d_nv: Tensor, g_logp_nK: Tensor, targets_nK: Tensor, tile: slice) -> None:
    """Adds each target's gradient at its logit, where that lies in this tile."""
    rows, places = ((targets_nK >= tile.start) & (targets_nK < tile.stop)).nonzero(as_tuple=True)
    d_nv.index_put_((rows, targets_nK[rows, places] - tile.start), g_logp_nK[rows, places], accumulate=True)
