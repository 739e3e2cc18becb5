"""Tiny random teachers of every architecture that can be cut, with the traits that make cutting hard."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

VOCAB = 97
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MIXED = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
CONFIGS = {
    "qwen2": (Qwen2Config, {"tie_word_embeddings": True}),
    "qwen2-sliding": (Qwen2Config, {"use_sliding_window": True, "sliding_window": 5, "layer_types": MIXED}),
    "qwen3": (Qwen3Config, {"head_dim": 12, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}),
    "llama": (LlamaConfig, {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama-mha": (LlamaConfig, {"num_attention_heads": 3}),
    "mistral": (MistralConfig, {"sliding_window": 5}),
    "smollm3": (SmolLM3Config, {"no_rope_layers": [1, 0, 1, 1], "tie_word_embeddings": True}),
}
NAMES = list(CONFIGS)


def make_teacher(name: str, seed: int = 0, num_hidden_layers: int = 4) -> PreTrainedModel:
    """Every weight, bias and norm is random, so that none of them can be lost unseen; logits are of the order of 1."""
    cls, changes = CONFIGS[name]
    changes = changes | {"num_hidden_layers": num_hidden_layers}
    if num_hidden_layers > 4:  # lists of a setting per layer go on as they began
        changes |= {key: (v * 2)[:num_hidden_layers] for key, v in changes.items() if isinstance(v, list)}
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(cls(**SHAPE | changes)).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            center = 1.0 if "norm" in key else 0.0
            parameter.copy_(center + 0.15 * torch.randn_like(parameter))
    return model


def some_ids(rows: int = 3, length: int = 17) -> torch.Tensor:
    return torch.randint(3, VOCAB, (rows, length), generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, use_cache=False).logits
