"""A tiny student with a byte-level BPE tokenizer, every weight random and large enough that first choices are clear."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from rl_distill.demo.problems import make_problems
from rl_distill.demo.tiny import make_tokenizer

CLASSES = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}


def write_student(folder, family="qwen2", tokenizer=None, seed=0, **changes):
    """The folder, with model and tokenizer; the embedding has three rows more than the tokenizer has tokens."""
    tokenizer = tokenizer or make_tokenizer([p.prompt + p.solution for p in make_problems("train", 300, 1)], 400)
    settings = {
        "vocab_size": len(tokenizer) + 3,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CLASSES[family](**settings | changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_((1.0 if "norm" in name else 0.0) + 0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
