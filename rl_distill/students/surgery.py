"""From a teacher and the indices to keep to a smaller model of the same class.

Assumes an architecture that `families` accepts. It does not decide what is kept. A cut model equals its teacher with
everything else masked to zero; for the hidden width that needs the norms rescaled (`_norm_scale`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from ..config import ConfigError
from .families import LAYER_KEY, axes_of, move

PER_LAYER_LISTS = ("layer_types", "no_rope_layers")


@dataclass(frozen=True)
class Dimensions:
    """The sizes of a model that can be cut."""

    num_layers: int
    num_heads: int
    num_groups: int
    """key/value heads; each serves num_heads / num_groups query heads"""
    head_dim: int
    num_channels: int
    hidden_size: int
    vocab_size: int

    @classmethod
    def of(cls, config: PreTrainedConfig) -> Dimensions:
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            config.num_hidden_layers,
            config.num_attention_heads,
            config.num_key_value_heads,
            head_dim,
            config.intermediate_size,
            config.hidden_size,
            config.vocab_size,
        )


@dataclass(frozen=True)
class Cut:
    """Indices of the teacher that stay, each rising. `groups` and `channels` have one entry per kept layer."""

    layers: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    channels: tuple[tuple[int, ...], ...]
    hidden: tuple[int, ...]
    vocab: tuple[int, ...]

    @classmethod
    def nothing(cls, size: Dimensions) -> Cut:
        """The cut that keeps everything."""
        every = tuple(range(size.num_layers))
        return cls(
            layers=every,
            groups=(tuple(range(size.num_groups)),) * len(every),
            channels=(tuple(range(size.num_channels)),) * len(every),
            hidden=tuple(range(size.hidden_size)),
            vocab=tuple(range(size.vocab_size)),
        )

    def with_layers(self, layers: Sequence[int]) -> Cut:
        """The same with only these of the teacher's layers, all of which it must still hold."""
        places = [self.layers.index(layer) for layer in layers]
        return replace(
            self,
            layers=tuple(layers),
            groups=tuple(self.groups[place] for place in places),
            channels=tuple(self.channels[place] for place in places),
        )


def cut_model(teacher: PreTrainedModel, cut: Cut) -> PreTrainedModel:
    """A model of the teacher's class and dtype that holds copies of the kept weights, in evaluation mode."""
    config = cut_config(teacher.config, cut)
    state = dict(cut_state(teacher.state_dict(), Dimensions.of(teacher.config), cut))
    if config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    student = type(teacher).from_pretrained(None, config=config, state_dict=state, dtype=teacher.dtype)
    if getattr(teacher, "generation_config", None) is not None:
        student.generation_config = type(teacher.generation_config).from_dict(teacher.generation_config.to_dict())
    return move(student, teacher.device).eval()


def cut_config(config: PreTrainedConfig, cut: Cut) -> PreTrainedConfig:
    """The teacher's config with the sizes of the cut. The head size is written out, as the quotient changes."""
    size = Dimensions.of(config)
    settings = config.to_dict()
    changes: dict[str, Any] = {
        "num_hidden_layers": len(cut.layers),
        "num_attention_heads": size.num_heads // size.num_groups * len(cut.groups[0]),
        "num_key_value_heads": len(cut.groups[0]),
        "head_dim": size.head_dim,
        "intermediate_size": len(cut.channels[0]),
        "hidden_size": len(cut.hidden),
        "vocab_size": len(cut.vocab),
    }
    if len(cut.hidden) < size.hidden_size:
        changes["rms_norm_eps"] = settings["rms_norm_eps"] * size.hidden_size / len(cut.hidden)
    if len(cut.layers) < size.num_layers:
        changes |= _per_layer(settings, cut.layers)
    try:
        return type(config).from_dict(settings | changes)
    except (ValueError, StrictDataclassError) as error:  # a family's own rules, such as Llama's about head counts
        reason = " ".join(str(error).split())
        raise ConfigError(f"{config.model_type} has no model of this shape: {reason}") from error


def _per_layer(settings: Mapping[str, Any], layers: Sequence[int]) -> dict[str, Any]:
    changes: dict[str, Any] = {
        name: [settings[name][layer] for layer in layers] for name in PER_LAYER_LISTS if settings.get(name) is not None
    }
    if settings.get("max_window_layers") is not None:  # the layers below this one attend to everything
        changes["max_window_layers"] = sum(layer < settings["max_window_layers"] for layer in layers)
    return changes


def cut_state(state: Mapping[str, Tensor], size: Dimensions, cut: Cut) -> Iterator[tuple[str, Tensor]]:
    """The kept part of every tensor under its new key; tensors that keep everything are the teacher's."""
    places = {layer: place for place, layer in enumerate(cut.layers)}
    scale = _norm_scale(size, cut)
    for key, tensor in state.items():
        match = LAYER_KEY.fullmatch(key)
        place = places.get(int(match[1])) if match else None
        if match and place is None:
            continue
        axes = axes_of(key)
        assert axes is not None, key
        kept = _select(tensor, axes, _indices(size, cut, place))
        new_key = key if match is None else f"model.layers.{place}.{match[2]}.{match[3]}"
        yield new_key, kept * scale if scale != 1 and axes == ("hidden",) and key.endswith("norm.weight") else kept


def _norm_scale(size: Dimensions, cut: Cut) -> float:
    """sqrt(all / kept): RMSNorm divides by the root of a MEAN over channels, which the absent ones no longer lower.

    x / sqrt(sum / all + eps) = sqrt(all / kept) * x / sqrt(sum / kept + eps * all / kept), where sum runs over kept
    channels and the masked ones are zero; `cut_config` scales eps.
    """
    return math.sqrt(size.hidden_size / len(cut.hidden))


def _indices(size: Dimensions, cut: Cut, place: int | None) -> dict[str, tuple[int, ...]]:
    """The rows or columns kept on every axis, for the layer at this place."""
    found = {"hidden": cut.hidden, "vocab": cut.vocab}
    if place is None:
        return found
    groups = cut.groups[place]
    per_group = size.num_heads // size.num_groups * size.head_dim
    return found | {
        "channel": cut.channels[place],
        "query": _blocks(groups, per_group),
        "key_value": _blocks(groups, size.head_dim),
    }


def _blocks(groups: Sequence[int], width: int) -> tuple[int, ...]:
    return tuple(group * width + offset for group in groups for offset in range(width))


def _select(tensor: Tensor, axes: Sequence[str | None], kept: Mapping[str, tuple[int, ...]]) -> Tensor:
    for dimension, axis in enumerate(axes):
        if axis is not None and len(kept[axis]) < tensor.shape[dimension]:
            tensor = tensor.index_select(dimension, torch.tensor(kept[axis], device=tensor.device))
    return tensor.clone()
