"""From ragged token lists to right-padded batches, with the positions of real completion tokens.

Right padding and a causal model: no attention mask is needed, and nothing computed on padding is ever read.
Flat *_N tensors hold the real tokens of all rows, row after row; `lengths` says how many each row has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

PACKED_SHARE = 7 / 8
"""Rows are packed into at most so many of their number: a masked row costs about 1.1 times a causal one on a CPU."""


@dataclass(frozen=True)
class TokenBatch:
    """`state_index_N[n]` is the flattened (B*L) position whose hidden state predicts `targets_N[n]`.

    Tokens run row by row: completion 0's tokens first, in order.
    """

    input_ids_BL: Tensor
    state_index_N: Tensor
    targets_N: Tensor
    position_ids_BL: Tensor | None = None
    """Where several rows share one of the batch: positions that begin anew with each."""

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same on another device."""
        positions_BL = None if self.position_ids_BL is None else self.position_ids_BL.to(device)
        return TokenBatch(
            self.input_ids_BL.to(device), self.state_index_N.to(device), self.targets_N.to(device), positions_BL
        )


def packed_batch(
    prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]], pad_token_id: int
) -> TokenBatch:
    """The token_batch with short rows behind each other, as many as fit into the length of the longest one; as it is
    where that spares too few rows to be faster (PACKED_SHARE).

    Why positions: they begin at 0 with every row, from which transformers makes a mask that keeps the rows apart. The
    tokens come back in the order of the rows wherever each was put. Example: rows of 6, 2 and 3 tokens: (2, 6) in place
    of (3, 6), the second with positions [0, 1, 2, 0, 1, 0], whose last is padding.
    """
    lengths = [len(p) + len(c) for p, c in zip(prompt_ids, completion_ids, strict=True)]
    bins = first_fit(lengths, max(lengths))
    if len(bins) > PACKED_SHARE * len(lengths):
        return token_batch(prompt_ids, completion_ids, pad_token_id)
    length = max(lengths)
    input_ids_BL = torch.full((len(bins), length), pad_token_id)
    position_ids_BL = torch.empty_like(input_ids_BL)
    index: list[Tensor] = [torch.empty(0)] * len(lengths)
    for number, rows in enumerate(bins):
        end = 0
        for row in rows:
            begin, end = end, end + lengths[row]
            input_ids_BL[number, begin:end] = torch.tensor([*prompt_ids[row], *completion_ids[row]])
            position_ids_BL[number, begin:end] = torch.arange(end - begin)
            first = number * length + begin + len(prompt_ids[row]) - 1
            index[row] = torch.arange(first, first + len(completion_ids[row]))
        position_ids_BL[number, end:] = torch.arange(length - end)  # padding is one more row
    targets_N = torch.tensor([token for completion in completion_ids for token in completion], dtype=torch.long)
    return TokenBatch(input_ids_BL, torch.cat(index), targets_N, position_ids_BL)


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Row numbers in groups whose lengths sum to at most `capacity`: longest first, each into the first group that has
    room (first fit decreasing; Johnson 1973, "Near-optimal bin packing algorithms").
    """
    groups: list[list[int]] = []
    room: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        place = next((i for i, free in enumerate(room) if free >= lengths[row]), len(groups))
        if place == len(groups):
            groups.append([])
            room.append(capacity)
        groups[place].append(row)
        room[place] -= lengths[row]
    return groups


def token_batch(
    prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]], pad_token_id: int
) -> TokenBatch:
    """Prompt and completion of every row joined, right-padded to the longest row of this batch."""
    length = max(len(p) + len(c) for p, c in zip(prompt_ids, completion_ids, strict=True))
    rows: list[list[int]] = []
    index: list[Tensor] = []
    targets: list[int] = []
    for row, (prompt, completion) in enumerate(zip(prompt_ids, completion_ids, strict=True)):
        rows.append([*prompt, *completion] + [pad_token_id] * (length - len(prompt) - len(completion)))
        first = row * length + len(prompt) - 1
        index.append(torch.arange(first, first + len(completion)))
        targets.extend(completion)
    return TokenBatch(torch.tensor(rows), torch.cat(index), torch.tensor(targets, dtype=torch.long))


def length_sorted(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Row numbers in batches of similar length, the shortest first; every row exactly once."""
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def within_tokens(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Row numbers in batches of similar length, the shortest first, each of at most `budget` tokens when padded to its
    longest row; a row longer than that is a batch of its own. Every row exactly once.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if batch and (len(batch) + 1) * lengths[row] > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def places_of_rows(lengths: Sequence[int], rows: Sequence[int]) -> Tensor:
    """Where the tokens of these rows are in a flat tensor, in the order of `rows`."""
    ends = list(accumulate(lengths))
    return torch.cat([torch.arange(ends[row] - lengths[row], ends[row]) for row in rows])


def per_token(values_B: Tensor, lengths: Sequence[int]) -> Tensor:
    """Each row's value once for each of its tokens, flat."""
    return values_B.repeat_interleave(torch.tensor(list(lengths), device=values_B.device))


def completion_lengths_mask(lengths: Sequence[int]) -> Tensor:
    """mask_BT, true on the first lengths[b] tokens of row b."""
    longest = max(lengths, default=0)
    return torch.arange(longest)[None, :] < torch.tensor(list(lengths))[:, None]


def to_padded(values_N: Tensor, mask_BT: Tensor) -> Tensor:
    """values in the order of the real tokens, spread over (B, T, ...) with zeros elsewhere."""
    padded = values_N.new_zeros((*mask_BT.shape, *values_N.shape[1:]))
    padded[mask_BT] = values_N
    return padded
