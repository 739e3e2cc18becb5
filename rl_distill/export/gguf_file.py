"""GGUF files of Llama, Qwen2 and Qwen3 students for llama.cpp: written, and read back into the model they came from.

Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md. Assumes the `gguf` package. Other families are refused.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import ConfigError
from .artefact import Artefact, TorchModel
from .formats import Request
from .gguf_tokenizer import BpeVocabulary, vocabulary_of
from .texts import generated_texts

FILE_NAME = "model.gguf"
FAMILIES = ("llama", "qwen2", "qwen3")
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7}
Q8_BLOCK = 32
SPEED_NOTE = "Speed is that of the file's weights in PyTorch; llama.cpp was not run."


def gguf_name(name: str) -> str:
    """`model.layers.3.self_attn.q_proj.weight` as `blk.3.attn_q.weight`."""
    stem, _, kind = name.rpartition(".")
    if not stem.startswith("model.layers."):
        return f"{NAMES[stem]}.{kind}"
    layer, _, part = stem.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{NAMES[part]}.{kind}"


def check(config: Any) -> None:
    """ConfigError where llama.cpp would compute something else than transformers."""
    if config.model_type not in FAMILIES:
        raise ConfigError(f"gguf: {config.model_type} models cannot be written; {', '.join(FAMILIES)} can")
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
        raise ConfigError("gguf: sliding-window attention cannot be written for this family")
    rope = config.rope_parameters
    if rope.get("rope_type", "default") != "default":
        raise ConfigError(f"gguf: RoPE scaling of type {rope['rope_type']} cannot be written")
    if config.hidden_act != "silu":
        raise ConfigError(f"gguf: the activation {config.hidden_act} cannot be written; silu can")
    if config.model_type != "llama" and getattr(config, "attention_bias", False):
        raise ConfigError("gguf: attention biases cannot be written for this family")


def write(request: Request) -> tuple[str, ...]:
    """model.gguf in the folder; notes on tensors that kept more precision than was asked for."""
    import gguf

    config = request.model.config
    check(config)
    vocabulary = vocabulary_of(request.tokenizer, config.vocab_size, generated_texts())
    writer = gguf.GGUFWriter(request.folder / FILE_NAME, config.model_type)
    _write_shape(writer, config, FILE_TYPES[request.weights])
    _write_vocabulary(writer, vocabulary, getattr(request.tokenizer, "chat_template", None))
    unrounded = [
        name for name, weight in _weights(request.model).items() if not _add(writer, name, weight, request.weights)
    ]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    kept = f"In f16, as their rows are not whole blocks of {Q8_BLOCK}: {len(unrounded)} tensors."
    return (SPEED_NOTE, kept) if unrounded else (SPEED_NOTE,)


def _weights(model: Any) -> dict[str, Tensor]:
    """By GGUF name; the head only where it is not the embedding. Llama's queries and keys in llama.cpp's order."""
    config, found = model.config, {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        found[gguf_name(name)] = _interleaved(weight, *_heads(config, name)) if _heads(config, name) else weight
    return found


def _heads(config: Any, name: str) -> tuple[int] | tuple[()]:
    """The number of heads if the tensor's rows must be reordered, else None."""
    if config.model_type == "llama" and ".q_proj." in name:
        return (config.num_attention_heads,)
    return (config.num_key_value_heads,) if config.model_type == "llama" and ".k_proj." in name else ()


def _interleaved(weight: Tensor, num_heads: int) -> Tensor:
    """llama.cpp rotates neighbouring channels of Llama models, transformers channel i with i + half."""
    return weight.unflatten(0, (num_heads, 2, -1)).transpose(1, 2).reshape(weight.shape)


def _halves(weight: Tensor, num_heads: int) -> Tensor:
    """The inverse of `_interleaved`."""
    return weight.unflatten(0, (num_heads, -1, 2)).transpose(1, 2).reshape(weight.shape)


def _add(writer: Any, name: str, weight: Tensor, weights: str) -> bool:
    """Adds the tensor; False where it was to be q8_0 and its rows do not divide into blocks. Vectors stay f32."""
    import gguf

    array = weight.detach().float().cpu().contiguous().numpy()
    if array.ndim == 1 or weights == "f32":
        writer.add_tensor(name, array)
    elif weights == "f16" or array.shape[-1] % Q8_BLOCK:
        writer.add_tensor(name, array.astype(np.float16))
        return weights == "f16"
    else:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    return True


def _write_shape(writer: Any, config: Any, file_type: int) -> None:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_name(Path(config.name_or_path or "student").name)
    writer.add_file_type(file_type)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _write_vocabulary(writer: Any, vocabulary: BpeVocabulary, chat_template: str | None) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    writer.add_token_merges(vocabulary.merges)
    writer.add_add_bos_token(vocabulary.adds_bos)
    for add, place in (("bos", vocabulary.bos), ("eos", vocabulary.eos), ("pad", vocabulary.pad)):
        if place is not None:
            getattr(writer, f"add_{add}_token_id")(place)
    if isinstance(chat_template, str):
        writer.add_chat_template(chat_template)


class GgufModel(TorchModel):
    """The file's weights in the student's architecture, and its vocabulary in place of the student's tokenizer."""

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)


def read(request: Request) -> Artefact:
    """Every weight from the file, dequantised. Raises KeyError where one is not there."""
    import gguf

    reader = gguf.GGUFReader(request.folder / FILE_NAME)
    found = {t.name: torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).copy()) for t in reader.tensors}
    model = copy.deepcopy(request.model)
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            tied = name == "lm_head.weight" and model.config.tie_word_embeddings
            stored = found["token_embd.weight" if tied else gguf_name(name)]
            heads = _heads(model.config, name)
            weight.copy_(_halves(stored, *heads) if heads else stored)
    return GgufModel(model, read_vocabulary(reader))


def read_vocabulary(reader: Any) -> BpeVocabulary:
    """The tokenizer's part of a file."""

    def value(name: str) -> Any:
        field = reader.get_field(f"tokenizer.ggml.{name}")
        return None if field is None else field.contents()

    lists = value("tokens"), value("token_type"), value("merges")
    bos, eos, pad = (value(f"{name}_token_id") for name in ("bos", "eos", "padding"))
    return BpeVocabulary(*lists, value("pre"), bos, eos, pad, bool(value("add_bos_token")))
