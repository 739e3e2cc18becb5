"""GGUF files against transformers' own reader, llama.cpp's conventions by hand, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from rl_distill.config import ConfigError
from rl_distill.demo.problems import make_problems
from rl_distill.export.create import export
from rl_distill.export.gguf_tokenizer import GPT2, MODERN, vocabulary_of
from rl_distill.export.texts import generated_texts

from .students import CLASSES, write_student

gguf = pytest.importorskip("gguf")
FEW = {"max_tokens": 300}


def logits(model, ids):
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_reads_the_same_model(tmp_path, family, tied):
    changes = {"tie_word_embeddings": tied, "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}
    student = write_student(tmp_path / "student", family, bpe(r"\p{N}", GPT2), head_dim=16, **changes)
    found = export(student, tmp_path / "out", "gguf", weights="f32", **FEW)
    assert found.failures == ()
    assert found.distance.max_logit_difference == 0
    assert found.texts_with_equal_ids == 1000
    # transformers does not read Qwen3's head size from the file and takes 128
    shape = {"config": AutoConfig.from_pretrained(student)} if family == "qwen3" else {}
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", gguf_file="model.gguf", dtype=torch.float32, **shape
    )
    ours = AutoModelForCausalLM.from_pretrained(student)
    ids = torch.arange(3, 43).view(2, 20)
    assert torch.allclose(logits(theirs, ids), logits(ours, ids), atol=1e-4)


def test_q8_0_is_the_nearest_multiple_of_a_block_scale(tmp_path):
    student = write_student(tmp_path / "student")
    found = export(student, tmp_path / "out", "gguf", weights="q8_0", force=True, **FEW)
    assert found.bytes < 0.4 * found.float_bytes
    assert found.distance.kl_mean < 0.01
    reader = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    tensor = next(t for t in reader.tensors if t.name == "blk.1.ffn_down.weight")
    assert tensor.tensor_type == gguf.GGMLQuantizationType.Q8_0
    weight = AutoModelForCausalLM.from_pretrained(student).model.layers[1].mlp.down_proj.weight.detach().numpy()
    blocks = weight.reshape(-1, 32)
    scale = np.abs(blocks).max(1, keepdims=True) / 127
    off = np.abs(gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(-1, 32) - blocks)
    assert (off <= 0.5 * scale + 1e-3 * np.abs(blocks).max()).all()


def test_rows_that_are_not_whole_blocks_are_kept_in_f16_and_noted(tmp_path):
    student = write_student(tmp_path / "student", intermediate_size=40)
    found = export(student, tmp_path / "out", "gguf", force=True, **FEW)
    assert found.notes[1:] == (
        "In f16, as their rows are not whole blocks of 32: 2 tensors.",
    )  # down_proj of two layers


def test_the_file_says_what_llama_cpp_asks_for(tmp_path):
    student = write_student(tmp_path / "student", "llama", bpe(r"\p{N}", GPT2), attention_bias=True, mlp_bias=True)
    found = export(student, tmp_path / "out", "gguf", weights="f16", force=True, **FEW)
    assert found.distance.max_logit_difference < 0.1
    reader = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    values = {name: field.contents() for name, field in reader.fields.items()}
    tokenizer = AutoTokenizer.from_pretrained(student)
    expected = {
        "general.architecture": "llama",
        "general.file_type": 1,
        "llama.block_count": 2,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 32,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.add_bos_token": False,
    }
    assert {name: values[name] for name in expected} == expected
    assert values["tokenizer.ggml.tokens"][-3:] == [f"[PAD{len(tokenizer) + i}]" for i in range(3)]
    assert values["tokenizer.ggml.token_type"][-3:] == [5, 5, 5]
    assert values["tokenizer.ggml.token_type"][tokenizer.eos_token_id] == 3
    # llama.cpp rotates channels 2i and 2i + 1 of a head where transformers rotates i and i + 16
    stored = next(t for t in reader.tensors if t.name == "blk.0.attn_k.bias").data
    ours = AutoModelForCausalLM.from_pretrained(student).model.layers[0].self_attn.k_proj.bias.detach().numpy()
    assert stored[32 + 2 * 3] == ours[32 + 3]
    assert stored[32 + 2 * 3 + 1] == ours[32 + 3 + 16]


def bpe(*rules, normalizer=None):
    """A byte-level tokenizer that splits by these expressions."""
    tokenizer = Tokenizer(models.BPE())
    splits = [pre_tokenizers.Split(Regex(rule), behavior="isolated") for rule in rules]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    texts = [p.prompt + p.solution for p in make_problems("train", 200, 1)] + generated_texts(300, seed=1)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


@pytest.mark.parametrize(
    ("rules", "pre"),
    [((GPT2,), "gpt-2"), ((r"\p{N}", GPT2), "smollm"), ((MODERN % 1,), "qwen2"), ((MODERN % 3,), "llama-bpe")],
)
def test_the_pre_tokenizer_is_found_by_what_it_does(rules, pre):
    tokenizer, texts = bpe(*rules), generated_texts(seed=2)
    found = vocabulary_of(tokenizer, len(tokenizer), texts)
    assert found.pre == pre
    assert found.encode("12<eos>a b") == tokenizer("12<eos>a b")["input_ids"]


def test_a_split_that_llama_cpp_does_not_have_is_refused(tmp_path):
    tokenizer = bpe(r"[aeiou]")
    student = write_student(tmp_path / "student", "qwen3", tokenizer)
    with pytest.raises(ConfigError, match="no pre-tokenizer that splits as this tokenizer"):
        export(student, tmp_path / "out", "gguf", **FEW)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}, "sliding-window"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, "type linear"),
        ({"hidden_act": "gelu"}, "gelu"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(tmp_path, changes, words):
    student = write_student(tmp_path / "student", **changes)
    with pytest.raises(ConfigError, match=words):
        export(student, tmp_path / "out", "gguf", **FEW)


def test_other_families_are_refused(tmp_path):
    from rl_distill.demo.tiny import make_tokenizer
    from rl_distill.models.families import tiny_config

    tokenizer = make_tokenizer(["a b"], 300)
    AutoModelForCausalLM.from_config(tiny_config("Gemma 3", len(tokenizer))).save_pretrained(tmp_path / "student")
    tokenizer.save_pretrained(tmp_path / "student")
    with pytest.raises(ConfigError, match="gemma3_text models cannot be written; llama, qwen2, qwen3 can"):
        export(tmp_path / "student", tmp_path / "out", "gguf", **FEW)


def test_half_signs_are_split_otherwise_by_the_demo_tokenizer():
    """Its rule for digits is `\\d`, llama.cpp's `\\p{N}`: ½ and ² are numbers for one of them alone."""
    from rl_distill.demo.tiny import make_tokenizer

    tokenizer = make_tokenizer([p.prompt + p.solution for p in make_problems("train", 300, 1)], 400)
    plain = [text.replace("½", "").replace("²", "") for text in generated_texts()]
    assert vocabulary_of(tokenizer, len(tokenizer), plain).pre == "smollm"
    with pytest.raises(ConfigError, match="'smollm', gives other token ids on 35 of 1000"):
        vocabulary_of(tokenizer, len(tokenizer), generated_texts())
