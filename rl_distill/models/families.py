"""The model families that are known to work, and a tiny configuration of each to show it by.

The tests sample, train, checkpoint, export and reload every one of them; `rl-distill list models` prints the table.
Families that are not named here may work too: what a run needs of a model is checked when it starts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

LINEAR_THEN_FULL = ["linear_attention", "full_attention"]


@dataclass(frozen=True)
class Family:
    """`examples`: published models of it. `tiny`: settings of a small model beside those that all families share."""

    model_type: str
    examples: str
    note: str = ""
    tiny: dict[str, Any] = field(default_factory=dict)
    refused: str = ""
    """Why it is not supported; empty where it is."""


SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
DELTA_NET = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": LINEAR_THEN_FULL,
}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
IMAGES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
VISION: dict[str, dict[str, Any]] = {"gemma3": IMAGES, "mistral3": {"model_type": "pixtral", "head_dim": 8} | IMAGES}
"""The image part of those families whose configuration has one; it is neither used nor trained."""

FAMILIES: dict[str, Family] = {
    "Qwen2": Family("qwen2", "Qwen2.5-0.5B to 72B, DeepSeek-R1-Distill-Qwen"),
    "Qwen3": Family("qwen3", "Qwen3-0.6B to 32B"),
    "Qwen3-MoE": Family("qwen3_moe", "Qwen3-30B-A3B", tiny=EXPERTS),
    "Qwen3-Next": Family(
        "qwen3_next",
        "Qwen3-Next-80B-A3B",
        "hybrid cache",
        EXPERTS | DELTA_NET | {"shared_expert_intermediate_size": 32},
    ),
    "Qwen3.5": Family("qwen3_5_text", "Qwen3.5-0.8B to 27B", "hybrid cache", DELTA_NET),
    "Qwen3.5-MoE": Family(
        "qwen3_5_moe_text",
        "Qwen3.5-35B-A3B",
        "hybrid cache",
        EXPERTS | DELTA_NET | {"shared_expert_intermediate_size": 32},
    ),
    "Llama": Family("llama", "Llama 3.2-1B to 3.3-70B"),
    "Mistral": Family("mistral", "Mistral-7B, Ministral", "sliding window", {"sliding_window": 8}),
    "Gemma 3": Family("gemma3_text", "gemma-3-270m, gemma-3-1b", "sliding window", {"sliding_window": 8}),
    "Gemma 3, with images": Family("gemma3", "gemma-3-4b to 27b", "text only", {"sliding_window": 8}),
    "Phi-3": Family("phi3", "Phi-3-mini, Phi-4-mini"),
    "SmolLM3": Family("smollm3", "SmolLM3-3B", tiny={"no_rope_layers": [1, 0]}),
    "OLMo 2": Family("olmo2", "OLMo-2-1B to 32B"),
    "OLMo 3": Family("olmo3", "Olmo-3-7B, 32B", "sliding window", {"sliding_window": 8}),
    "Mistral 3": Family("mistral3", "Mistral-Small-3.1, Ministral-3", "text only", {"model_type": "mistral"}),
    "Mixtral": Family("mixtral", "Mixtral-8x7B", tiny={"num_local_experts": 4, "num_experts_per_tok": 2}),
    "LFM2": Family(
        "lfm2",
        "LFM2-350M to 2.6B",
        "hybrid cache",
        {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    ),
    "GPT-OSS": Family(
        "gpt_oss",
        "gpt-oss-20b",
        "sliding window",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
    ),
    "DeepSeek-V3": Family(
        "deepseek_v3",
        "DeepSeek-V3, R1",
        tiny=LATENT
        | {
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "moe_intermediate_size": 32,
            "num_key_value_heads": 4,
        },
    ),
    "GLM-4": Family("glm4", "GLM-4-9B, GLM-4-32B"),
    "GPT-2": Family("gpt2", "gpt2, gpt2-xl", "learned positions", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
    "Granite": Family(
        "granite",
        "granite-3.3-2b, granite-4.0",
        tiny={"logits_scaling": 8.0},
        refused="divides its logits after the head, which log-probabilities formed from hidden states leave out",
    ),
}


def tiny_config(name: str, vocab_size: int, **changes: Any) -> PreTrainedConfig:
    """The configuration of a random model of the family that a test can train in a second."""
    family = FAMILIES[name]
    shape = {} if family.model_type == "gpt2" else SHAPE
    ids = {"vocab_size": vocab_size, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}
    text = shape | ids | family.tiny | changes
    if family.model_type in VISION:
        return AutoConfig.for_model(family.model_type, text_config=text, vision_config=VISION[family.model_type])
    return AutoConfig.for_model(family.model_type, **text)


def table() -> str:
    """The families for a terminal, in Markdown."""
    lines = ["| family | models | |", "|---|---|---|"]
    for name, family in FAMILIES.items():
        note = f"not supported: it {family.refused}" if family.refused else family.note
        lines.append(f"| {name} | {family.examples} | {note} |")
    return "\n".join(lines)
