"""What every exported model can do, whichever engine runs it, and greedy decoding on top of it.

Shapes: B rows, T new positions, S positions so far, V vocabulary. Padding is on the left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Artefact(Protocol):
    """A model that can be measured. `encode` is the artefact's own tokenizer, special tokens of the text included."""

    def forward(self, ids_BT: Tensor, mask_BS: Tensor, positions_BT: Tensor, past: Any) -> tuple[Tensor, Any]:
        """Logits (B, T, V) in float32, and the cache to pass on as `past`; None starts with an empty one."""

    def encode(self, text: str) -> list[int]: ...


class TorchModel:
    """A transformers model with its tokenizer, in memory."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer

    @torch.no_grad()
    def forward(self, ids_BT: Tensor, mask_BS: Tensor, positions_BT: Tensor, past: Any) -> tuple[Tensor, Any]:
        settings = {"attention_mask": mask_BS, "position_ids": positions_BT, "past_key_values": past}
        found = self.model(input_ids=ids_BT, use_cache=True, **settings)
        return found.logits.float(), found.past_key_values

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])


def left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Ids (B, T) and their mask, 1 where a token is real."""
    length = max(map(len, rows))
    ids_BT = torch.tensor([[pad] * (length - len(row)) + list(row) for row in rows])
    mask_BT = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    return ids_BT, mask_BT


def positions(mask_BT: Tensor) -> Tensor:
    """The place of every token in its row, counted from its first real one; 0 for padding."""
    return (mask_BT.cumsum(-1) - 1).clamp(min=0)


def logits(artefact: Artefact, rows: Sequence[Sequence[int]], pad: int) -> list[Tensor]:
    """Per row, logits (its length, V), all rows in one padded batch."""
    ids_BT, mask_BT = left_padded(rows, pad)
    found_BTV, _ = artefact.forward(ids_BT, mask_BT, positions(mask_BT), None)
    return [row_TV[-len(row) :] for row_TV, row in zip(found_BTV, rows, strict=True)]


def greedy(artefact: Artefact, rows: Sequence[Sequence[int]], pad: int, num_new_tokens: int) -> Tensor:
    """The most likely continuation, ids (B, num_new_tokens); no token ends a row early."""
    ids_BT, mask_BS = left_padded(rows, pad)
    positions_BT, past = positions(mask_BS), None
    new: list[Tensor] = []
    while len(new) < num_new_tokens:
        found_BTV, past = artefact.forward(ids_BT, mask_BS, positions_BT, past)
        ids_BT = found_BTV[:, -1].argmax(-1, keepdim=True)
        positions_BT = positions_BT[:, -1:] + 1
        mask_BS = torch.cat([mask_BS, torch.ones_like(ids_BT)], dim=1)
        new.append(ids_BT)
    return torch.cat(new, dim=1)
