"""Which layers a student keeps: evenly spaced, by measured importance, or by a greedy search.

The first and the last layer stay under every criterion. Importance comes from `importance`; only the search runs the
model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..config import ConfigError
from .calibration import TokenBatch
from .families import layers_of
from .importance import Importance
from .measure import CHUNK_LOGITS, forward_kl
from .shape import Choice


def choose_layers(choice: Choice, num_layers: int, importance: Importance | None) -> tuple[int, ...]:
    """The kept layers, rising, for every choice but `learned` (see `greedy_layers`)."""
    if choice.indices is not None:
        if choice.indices[-1] >= num_layers:
            raise ConfigError(
                f"layers: the teacher has {num_layers} layers, 0 to {num_layers - 1}; got {choice.indices}"
            )
        return choice.indices
    count = num_kept(choice, num_layers)
    if count == num_layers:
        return tuple(range(num_layers))
    if choice.criterion == "uniform":
        return uniform(num_layers, count)
    assert importance is not None, choice
    if choice.criterion == "cosine":
        return without_block(importance.angle_SS, count)
    scores_L = importance.block_influence_L if choice.criterion == "block_influence" else importance.update_L
    return highest(scores_L, count)


def num_kept(choice: Choice, num_layers: int) -> int:
    """The number of layers that stay; raises ConfigError below two, as first and last are kept."""
    count = choice.amount.of(num_layers, "layers")
    if count < 2 <= num_layers:
        raise ConfigError(
            f"layers: first and last are kept, so at least 2 of {num_layers}, got {count}; or give indices"
        )
    return count


def uniform(num_layers: int, count: int) -> tuple[int, ...]:
    """`count` layers, evenly spaced from the first to the last."""
    return tuple(round(place * (num_layers - 1) / max(count - 1, 1)) for place in range(count))


def highest(scores_L: Tensor, count: int) -> tuple[int, ...]:
    """First, last, and those between them that score highest."""
    between = range(1, len(scores_L) - 1)
    best = sorted(between, key=lambda layer: -float(scores_L[layer]))[: count - 2]
    return (0, *sorted(best), len(scores_L) - 1)


def without_block(angle_SS: Tensor, count: int) -> tuple[int, ...]:
    """All but the block of consecutive inner layers whose input and output are the nearest by angle.

    Gromov et al., arXiv 2403.17887.
    """
    num_layers = len(angle_SS) - 1
    width = num_layers - count
    start = min(range(1, num_layers - width), key=lambda first: float(angle_SS[first, first + width]))
    return tuple(layer for layer in range(num_layers) if not start <= layer < start + width)


@torch.no_grad()
def greedy_layers(model: PreTrainedModel, batches: Sequence[TokenBatch], count: int) -> tuple[int, ...]:
    """Removes one layer after the other, each time the one without which KL(teacher || student) is the lowest.

    With L layers and R to remove that is R * (L - 2 - (R - 1) / 2) trials, each from the removed layer upwards.
    """
    num_layers = len(layers_of(model))
    kept = list(range(num_layers))
    final_states = [_states(model, batch.ids_BT.to(model.device), [])[-1] for batch in batches]
    while len(kept) > count:
        divergence = torch.zeros(num_layers, dtype=torch.float64)
        for batch, final_BTD in zip(batches, final_states, strict=True):
            divergence += divergences(model, batch, final_BTD, kept)
        kept.remove(min(kept[1:-1], key=lambda layer: float(divergence[layer])))
    return tuple(kept)


def divergences(model: PreTrainedModel, batch: TokenBatch, final_BTD: Tensor, kept: Sequence[int]) -> Tensor:
    """Sum of KL over the batch for every kept inner layer, were it removed as well; 0 elsewhere."""
    num_layers = len(layers_of(model))
    gone = [layer for layer in range(num_layers) if layer not in kept]
    inputs = _states(model, batch.ids_BT.to(model.device), gone)
    scored_BT = batch.scored_BT[:, 1:].to(model.device)
    found = torch.zeros(num_layers, dtype=torch.float64)
    for layer in kept[1:-1]:
        with bypassed(model, {*gone, *range(layer + 1)}):
            out_BTD = model.base_model(inputs_embeds=inputs[layer], use_cache=False).last_hidden_state
        found[layer] = _total_kl(model, final_BTD[:, :-1][scored_BT], out_BTD[:, :-1][scored_BT])
    return found


def _states(model: PreTrainedModel, ids_BT: Tensor, gone: Sequence[int]) -> list[Tensor]:
    """The input of every layer, and last the final hidden states, with the layers `gone` bypassed."""
    states: list[Tensor] = []
    handles = [layer.register_forward_pre_hook(lambda _, args: states.append(args[0])) for layer in layers_of(model)]
    try:
        with bypassed(model, gone):
            states.append(model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state)
    finally:
        for handle in handles:
            handle.remove()
    return states


def _total_kl(model: PreTrainedModel, teacher_ND: Tensor, student_ND: Tensor) -> float:
    size = max(1, CHUNK_LOGITS // model.config.vocab_size)
    total = 0.0
    for teacher_nD, student_nD in zip(teacher_ND.split(size), student_ND.split(size), strict=True):
        logq_nV, logp_nV = (model.lm_head(x).log_softmax(-1, dtype=torch.float32) for x in (teacher_nD, student_nD))
        total += float(forward_kl(logq_nV, logp_nV).sum())
    return total


@contextmanager
def bypassed(model: PreTrainedModel, gone: Sequence[int] | set[int]) -> Iterator[None]:
    """The model with these layers handing on what they get. Not for decoding with a cache."""
    layers = [layers_of(model)[index] for index in sorted(gone)]
    for layer in layers:
        layer.forward = lambda hidden_states, *_, **__: hidden_states
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
