"""Which models can be cut, and a teacher loaded from its folder.

The list holds the architectures whose cut students were compared with masked teachers; everything else is refused in
one line. Nothing is cut here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..config import ConfigError
from ..models.loading import load_config_of, load_model

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")

# State-dict keys below `model.layers.N.` with the axes of their weights; a bias has the first axis alone.
LAYER_AXES: dict[str, tuple[str | None, ...]] = {
    "self_attn.q_proj": ("query", "hidden"),
    "self_attn.k_proj": ("key_value", "hidden"),
    "self_attn.v_proj": ("key_value", "hidden"),
    "self_attn.o_proj": ("hidden", "query"),
    "self_attn.q_norm": (None,),
    "self_attn.k_norm": (None,),
    "mlp.gate_proj": ("channel", "hidden"),
    "mlp.up_proj": ("channel", "hidden"),
    "mlp.down_proj": ("hidden", "channel"),
    "input_layernorm": ("hidden",),
    "post_attention_layernorm": ("hidden",),
}
MODEL_AXES: dict[str, tuple[str | None, ...]] = {
    "model.embed_tokens": ("vocab", "hidden"),
    "model.norm": ("hidden",),
    "lm_head": ("vocab", "hidden"),
}
LAYER_KEY = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")


def load_teacher(folder: str | Path, dtype: str = "auto") -> PreTrainedModel:
    """The model of a folder or hub id in evaluation mode, in the dtype it was saved in; refused before it is loaded."""
    if Path(folder, "adapter_config.json").is_file():
        raise ConfigError(f"{folder} holds a LoRA adapter: merge it into its base model first (merge_and_unload)")
    check_config(load_config_of(folder, who="teacher"))
    return load_model(folder, dtype, who="teacher").eval()


def check_config(config: PreTrainedConfig) -> None:
    """Raises ConfigError where the architecture cannot be cut, with the reason."""
    if config.model_type not in FAMILIES:
        raise ConfigError(
            f"cannot cut a {config.model_type!r} model: {_reason(config.to_dict())}. "
            f"Architectures that can be cut: {', '.join(FAMILIES)}"
        )
    if getattr(config, "quantization_config", None) is not None:
        raise ConfigError("cannot cut quantized weights: give the teacher's folder in float32, bfloat16 or float16")
    if (getattr(config, "pretraining_tp", 1) or 1) != 1:
        raise ConfigError("cannot cut a model with pretraining_tp above 1: set it to 1 in config.json")


def _reason(config: dict[str, Any]) -> str:
    if any(config.get(name) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        return "it is a mixture of experts, whose router would have to be cut with them"
    types = set(config.get("layer_types") or ()) | set(config.get("layers_block_type") or ())
    if types - {"full_attention", "sliding_attention", "chunked_attention"}:
        return f"it mixes attention with other kinds of layers ({', '.join(sorted(map(str, types)))})"
    if str(config.get("model_type")).startswith("gemma"):
        return "it scales its embeddings and norms by fixed rules that a cut would have to follow"
    if config.get("is_encoder_decoder"):
        return "it has an encoder"
    return "its layers were not checked against a masked teacher"


def check_weights(model: PreTrainedModel) -> None:
    """Raises ConfigError on a weight that no rule covers, such as an expert's or an adapter's."""
    for key in model.state_dict():
        if axes_of(key) is None:
            raise ConfigError(f"cannot cut the weight {key!r}: no rule says which of its axes belong to what")


def axes_of(key: str) -> tuple[str | None, ...] | None:
    """The axes of the tensor under this state-dict key; None where no rule covers it."""
    name, _, kind = key.rpartition(".")
    match = LAYER_KEY.fullmatch(key)
    axes = LAYER_AXES.get(match[2]) if match else MODEL_AXES.get(name)
    if axes is None or kind not in ("weight", "bias"):
        return None
    return axes if kind == "weight" else axes[:1]


def layers_of(model: PreTrainedModel) -> list[Any]:
    """The decoder layers; every family has a class for them, all with the parts of LAYER_AXES."""
    layers = model.base_model.layers
    assert isinstance(layers, torch.nn.ModuleList)
    return list(layers)


def move(model: PreTrainedModel, device: torch.device | str) -> PreTrainedModel:
    """The same model, moved."""
    torch.nn.Module.to(model, device)
    return model
