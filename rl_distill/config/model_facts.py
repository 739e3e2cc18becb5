"""What the files of a model say about it before it is loaded: its size, its positions, whether it has a chat template.

May assume a folder or hub id in the Hugging Face layout. Reads a few small JSON files; imports no torch, loads no
weights, and never fails: what cannot be read is None.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNGATED = ("gpt2", "gpt_neo", "gpt_neox", "gpt_bigcode", "gptj", "opt", "bloom", "falcon", "phi", "starcoder2")
"""Families whose MLP has two matrices; all others have a gate too."""
SECONDS_FOR_THE_HUB = 3.0


@dataclass(frozen=True)
class ModelFacts:
    """`parameters` within a few per cent; `positions` is the longest sequence, None where there is no limit;
    `hidden_size` is the width of the residual stream.
    """

    parameters: int | None = None
    positions: int | None = None
    has_chat_template: bool = False
    is_adapter: bool = False
    hidden_size: int | None = None


def read_facts(model: str) -> ModelFacts:
    """The facts of a folder or hub id; those of an adapter are its base model's."""
    adapter = read_json(model, "adapter_config.json") if Path(model).is_dir() else None
    base = str((adapter or {}).get("base_model_name_or_path") or model)
    shape = read_json(base, "config.json")
    if shape is None:
        return ModelFacts(is_adapter=adapter is not None)
    templates = any(has_chat_template(place) for place in dict.fromkeys((model, base)))
    return ModelFacts(count_parameters(shape), positions_of(shape), templates, adapter is not None, width_of(shape))


def has_chat_template(model: str) -> bool:
    """Of the tokenizer: in its configuration, or a file beside it (transformers writes either)."""
    if (read_json(model, "tokenizer_config.json") or {}).get("chat_template"):
        return True
    return find_file(model, "chat_template.jinja") is not None


def count_parameters(shape: Mapping[str, Any]) -> int | None:
    """Parameters of a decoder with this config.json, without biases and norms; None where it does not say enough."""
    text = shape.get("text_config") or shape
    hidden, layers = _first(text, "hidden_size", "n_embd", "d_model"), _first(text, "num_hidden_layers", "n_layer")
    vocab, heads = _first(text, "vocab_size"), _first(text, "num_attention_heads", "n_head")
    if not all(isinstance(number, int) and number > 0 for number in (hidden, layers, vocab, heads)):
        return None
    is_gated = text.get("model_type") not in UNGATED
    head = text.get("head_dim") or hidden // heads
    attention = 2 * hidden * head * (heads + (text.get("num_key_value_heads") or heads))
    inner = _first(text, "intermediate_size", "n_inner", "ffn_dim") or 4 * hidden
    experts = _first(text, "num_experts", "num_local_experts", "n_routed_experts") or 1
    inner = experts * (text.get("moe_intermediate_size") or inner) if experts > 1 else inner
    tied = shape.get("tie_word_embeddings", not is_gated or str(text.get("model_type")).startswith("gemma"))
    rows = vocab * (1 if tied else 2) + (text.get("n_positions") or 0)  # GPT-2 learns its positions
    return layers * (attention + (3 if is_gated else 2) * hidden * inner) + rows * hidden


def width_of(shape: Mapping[str, Any]) -> int | None:
    found = _first(shape.get("text_config") or shape, "hidden_size", "n_embd", "d_model")
    return found if isinstance(found, int) and found > 0 else None


def positions_of(shape: Mapping[str, Any]) -> int | None:
    """The longest sequence, with the factor of a stretched RoPE; None where the configuration does not say."""
    text = shape.get("text_config") or shape
    found = _first(text, "max_position_embeddings", "n_positions", "max_seq_len")
    if not isinstance(found, int) or found <= 0:
        return None
    return max(found, *(_stretched(rope) for rope in _ropes(text)), 0)


def _ropes(text: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The RoPE settings: one set, or one for each kind of layer."""
    found = _first(text, "rope_parameters", "rope_scaling") or {}
    inner = [value for value in found.values() if isinstance(value, Mapping)]
    return inner or ([found] if found else [])


def _stretched(rope: Mapping[str, Any]) -> int:
    original, factor = rope.get("original_max_position_embeddings"), rope.get("factor")
    return int(original * factor) if original and factor else 0


def _first(settings: Mapping[str, Any], *names: str) -> Any:
    return next((settings[name] for name in names if settings.get(name) is not None), None)


def read_json(model: str, name: str) -> dict[str, Any] | None:
    """The contents of a small JSON file of the model; None where there is none or it is damaged."""
    path = find_file(model, name)
    try:
        found = None if path is None else json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def find_file(model: str, name: str) -> Path | None:
    """A file of the model: in its folder, else in the hub's cache, else fetched where the hub answers."""
    if Path(model).is_dir():
        path = Path(model) / name
        return path if path.is_file() else None
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        cached = try_to_load_from_cache(model, name)
        if isinstance(cached, str):
            return Path(cached)
        if cached is not None or constants.HF_HUB_OFFLINE or not _answers(constants.ENDPOINT):
            return None
        return Path(hf_hub_download(model, name))
    except (HFValidationError, HfHubHTTPError, OSError):
        return None


_ANSWERS: dict[str, bool] = {}


def _answers(address: str) -> bool:
    """Whether the hub can be reached, asked once: the hub's own client tries for half a minute."""
    if address not in _ANSWERS:
        try:
            urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=SECONDS_FOR_THE_HUB).close()
            _ANSWERS[address] = True
        except urllib.error.HTTPError:
            _ANSWERS[address] = True
        except (OSError, ValueError):
            _ANSWERS[address] = False
    return _ANSWERS[address]
