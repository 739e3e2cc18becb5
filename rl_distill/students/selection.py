"""From a shape and measured importance to the indices that stay: key/value groups, channels, residual channels, layers.

The number kept is the same in every layer, as the config has one size for all; which ones are kept differs by layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .calibration import TokenBatch
from .depth import choose_layers, greedy_layers, num_kept
from .families import layers_of
from .importance import Importance
from .shape import Choice, StudentShapeConfig
from .surgery import Cut, Dimensions

WIDTH_MULTIPLES = {
    32: "tensor cores and 4-bit formats",
    128: "4-bit formats in groups of 128",
    256: "GGUF's K-quants",
}


def choose(
    teacher: PreTrainedModel,
    shape: StudentShapeConfig,
    importance: Importance | None,
    search: Sequence[TokenBatch] = (),
) -> Cut:
    """The cut of everything but the vocabulary. `search` are the batches of `layers: learned`."""
    size = Dimensions.of(teacher.config)
    choices = shape.choices()
    cut = Cut.nothing(size)
    if "heads" in choices:
        cut = replace(cut, groups=_groups(teacher, choices["heads"], importance, size))
    if "ffn" in choices:
        cut = replace(cut, channels=_channels(teacher, choices["ffn"], importance, size))
    if "hidden" in choices:
        assert importance is not None
        cut = replace(cut, hidden=top(importance.hidden_D, choices["hidden"].amount.of(size.hidden_size, "hidden")))
    if "layers" in choices:
        cut = cut.with_layers(_layers(teacher, choices["layers"], importance, search, size))
    return cut


def top(scores: Tensor, count: int) -> tuple[int, ...]:
    """The indices of the `count` highest scores, rising; of equal ones the first."""
    best = torch.sort(scores, descending=True, stable=True).indices[:count]
    return tuple(sorted(best.tolist()))


def _layers(
    teacher: PreTrainedModel,
    choice: Choice,
    importance: Importance | None,
    search: Sequence[TokenBatch],
    size: Dimensions,
) -> tuple[int, ...]:
    if choice.criterion == "learned":
        return greedy_layers(teacher, search, num_kept(choice, size.num_layers))
    return choose_layers(choice, size.num_layers, importance)


def _groups(
    teacher: PreTrainedModel, choice: Choice, importance: Importance | None, size: Dimensions
) -> tuple[tuple[int, ...], ...]:
    count = choice.amount.of(size.num_groups, "heads (key/value groups)")
    if choice.criterion == "weight_variance":
        scores = [_variances(layer.self_attn, size) for layer in layers_of(teacher)]
    else:
        assert importance is not None
        scores = list(importance.heads_LG)
    return tuple(top(scores_G, count) for scores_G in scores)


def _channels(
    teacher: PreTrainedModel, choice: Choice, importance: Importance | None, size: Dimensions
) -> tuple[tuple[int, ...], ...]:
    count = choice.amount.of(size.num_channels, "ffn")
    if choice.criterion == "magnitude":
        scores = [_magnitudes(layer.mlp) for layer in layers_of(teacher)]
    else:
        assert importance is not None
        scores = list(importance.channels_LF)
    return tuple(top(scores_F, count) for scores_F in scores)


def _variances(attention: Any, size: Dimensions) -> Tensor:
    """The variance of all weights of a group: its queries' and its key's, value's and output's."""
    rows = [getattr(attention, name).weight for name in ("q_proj", "k_proj", "v_proj")]
    weights = [weight.detach().float().reshape(size.num_groups, -1) for weight in (*rows, attention.o_proj.weight.T)]
    return torch.cat(weights, dim=1).var(dim=1)


def _magnitudes(mlp: Any) -> Tensor:
    """The length of all weights of a channel: its rows of gate and up and its column of down."""
    weights = (mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight.T)
    return torch.cat([weight.detach().float() for weight in weights], dim=1).norm(dim=1)


def width_warnings(before: Dimensions, after: Dimensions) -> list[str]:
    """Widths that the cut made awkward: see WIDTH_MULTIPLES."""
    widths = {
        "ffn": (before.num_channels, after.num_channels),
        "hidden": (before.hidden_size, after.hidden_size),
        "heads": (before.num_heads * before.head_dim, after.num_heads * after.head_dim),
    }
    return [text for name, (old, new) in widths.items() if new != old for text in _width_warning(name, old, new)]


def _width_warning(name: str, old: int, new: int) -> Iterator[str]:
    for multiple, formats in WIDTH_MULTIPLES.items():
        if new % multiple and (old % multiple == 0 or multiple == 32):
            yield f"{name}: the width {new} is not a multiple of {multiple}, which {formats} need"
            return
