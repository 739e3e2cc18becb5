"""The language-model head as a function of chunks: logits of some tokens and some of the vocabulary, into given memory.

Shapes: N tokens, V vocabulary, D width of the hidden states; n tokens of one chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

HeadWeights = Tensor | Sequence[Tensor]
"""A teacher's head, (V, E), or those of several teachers whose distributions are averaged."""


class Head(NamedTuple):
    """What turns hidden states into logits; all of one dtype."""

    hidden_ND: Tensor
    weight_VD: Tensor
    bias_V: Tensor | None

    def logits(self, chunk: slice, temperature: float, out_nV: Tensor) -> Tensor:
        """Logits / temperature of a chunk of tokens, written into `out_nV`."""
        bias, beta = (self.weight_VD.new_zeros(1), 0.0) if self.bias_V is None else (self.bias_V, 1 / temperature)
        factors = (bias, self.hidden_ND[chunk], self.weight_VD.t())
        if out_nV.dtype == self.weight_VD.dtype:
            return torch.addmm(*factors, beta=beta, alpha=1 / temperature, out=out_nV)
        return out_nV.copy_(torch.addmm(*factors, beta=beta, alpha=1 / temperature))

    def buffers(self, num_rows: int, count: int, num_columns: int | None = None) -> list[Tensor]:
        """`count` tensors of num_rows x V, to be reused by all chunks: fresh pages cost more than the sums in them."""
        dtype = torch.promote_types(self.weight_VD.dtype, torch.float32)
        width = len(self.weight_VD) if num_columns is None else num_columns
        return [self.weight_VD.new_empty(num_rows, width, dtype=dtype) for _ in range(count)]

    def part(self, vocabulary: slice) -> Head:
        """The same for some of the vocabulary."""
        return self._replace(
            weight_VD=self.weight_VD[vocabulary], bias_V=None if self.bias_V is None else self.bias_V[vocabulary]
        )


class Mixture(NamedTuple):
    """The mean of the distributions of several heads, in the place of a teacher's head."""

    heads: tuple[Head, ...]

    @classmethod
    def of(cls, hidden_NF: Tensor, weights: Sequence[Tensor], head: Callable[[Tensor, Tensor], Head]) -> Mixture:
        """`hidden_NF` holds the states for all weights side by side; `head` makes one of its part and its weight."""
        parts = hidden_NF.split([weight.shape[1] for weight in weights], dim=1)
        return cls(tuple(map(head, parts, weights)))

    def logits(self, chunk: slice, temperature: float, out_nV: Tensor) -> Tensor:
        """log of 1/K sum_k softmax(logits_k / temperature) of a chunk of tokens, written into `out_nV`."""
        first, *others = self.heads
        _log_softmax(first.logits(chunk, temperature, out_nV))
        own_nV = torch.empty_like(out_nV)
        for head in others:
            torch.logaddexp(out_nV, _log_softmax(head.logits(chunk, temperature, own_nV)), out=out_nV)
        return out_nV.sub_(math.log(len(self.heads)))


def _log_softmax(logits_nV: Tensor) -> Tensor:
    """In place."""
    return logits_nV.sub_(logits_nV.logsumexp(dim=-1, keepdim=True))


def slices(total: int, size: int) -> Iterator[slice]:
    """Slices of `size` that cover range(total), the last one shorter; one empty slice where the total is 0."""
    return (slice(start, min(start + size, total)) for start in range(0, max(total, 1), size))


def add_product(sum_: Tensor, left: Tensor, right: Tensor) -> None:
    """sum_ += left @ right, whose sums may be of a wider dtype than the factors."""
    if sum_.dtype == left.dtype:
        sum_.addmm_(left, right)
    else:
        sum_ += left @ right
