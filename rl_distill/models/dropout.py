"""Dropout taken out of a model, wherever transformers and peft keep it: layers, attributes of modules, the config.

A model stays in training mode, which gradient checkpointing needs. Nothing here knows of PPO.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from transformers import PreTrainedConfig

NOISE = ("drop", "jitter")
"""Of names of settings that only act in training: attention_dropout, resid_pdrop, layerdrop, router_jitter_noise."""


def remove_dropout(model: nn.Module) -> list[str]:
    """Sets every rate of dropout to 0; returns what it found, as `name=rate`, each once.

    An update would otherwise compare log-probabilities under a random half of the network with old ones under all of
    it: at GPT-2's default of 0.1 the very first update clips 30 % of the tokens.
    """
    found: dict[str, None] = {}
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            found |= _zero(vars(module), ["p"], type(module).__name__)
        found |= _zero(vars(module), _rates(vars(module)))
        config = getattr(module, "config", None)
        if isinstance(
            config, PreTrainedConfig
        ):  # some models read their rate from here in every forward pass (Falcon, GPT-J)
            found |= _zero(vars(config), _rates(vars(config)))
    return list(found)


def _rates(attributes: dict[str, Any]) -> list[str]:
    return [name for name, value in attributes.items() if isinstance(value, float) and any(w in name for w in NOISE)]


def _zero(attributes: dict[str, Any], names: list[str], shown: str | None = None) -> dict[str, None]:
    found = {f"{shown or name}={attributes[name]:g}": None for name in names if attributes[name] > 0}
    attributes.update(dict.fromkeys(names, 0.0))
    return found
