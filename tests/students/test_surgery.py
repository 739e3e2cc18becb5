"""Cut models against their teachers: whole, masked to zero, with layers that do nothing, with and without a cache."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, MixtralConfig, Phi3Config, Qwen3NextConfig

from rl_distill.config import ConfigError
from rl_distill.students.families import check_config, check_weights, load_teacher
from rl_distill.students.surgery import Cut, Dimensions, cut_model

from .models import NAMES, logits, make_teacher, some_ids


def whole(teacher):
    return Cut.nothing(Dimensions.of(teacher.config))


@pytest.fixture(params=NAMES)
def teacher(request):
    return make_teacher(request.param)


def test_a_cut_of_nothing_is_bit_identical(teacher):
    student = cut_model(teacher, whole(teacher))
    ours, theirs = student.state_dict(), teacher.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert torch.equal(logits(student, some_ids()), logits(teacher, some_ids()))
    ignored = {"dtype", "_name_or_path", "architectures", "head_dim"}  # the head size is written out
    changed = {k for k, v in teacher.config.to_dict().items() if student.config.to_dict()[k] != v}
    assert changed <= ignored


def test_a_student_shares_no_memory_with_its_teacher(teacher):
    student = cut_model(teacher, whole(teacher))
    before = logits(teacher, some_ids())
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert torch.equal(logits(teacher, some_ids()), before)


def test_removed_layers_equal_layers_that_add_nothing(teacher):
    student = cut_model(teacher, whole(teacher).with_layers((0, 3)))
    with torch.no_grad():  # what a layer adds goes through these two projections alone
        for layer in teacher.model.layers[1:3]:
            for part in (layer.self_attn.o_proj, layer.mlp.down_proj):
                for parameter in part.parameters():
                    parameter.zero_()
    assert student.config.num_hidden_layers == 2
    assert [layer.self_attn.layer_idx for layer in student.model.layers] == [0, 1]
    assert torch.allclose(logits(student, some_ids()), logits(teacher, some_ids()), atol=1e-6)


def test_removed_groups_equal_heads_masked_to_zero(teacher):
    groups = ((0, 2), (1, 2), (0, 1), (0, 2))
    student = cut_model(teacher, replace(whole(teacher), groups=groups))
    size = Dimensions.of(teacher.config)
    per_group = size.num_heads // size.num_groups * size.head_dim
    assert not torch.allclose(logits(student, some_ids()), logits(teacher, some_ids()), atol=1e-2)
    with torch.no_grad():
        for layer, gone in zip(teacher.model.layers, (1, 0, 2, 1), strict=True):
            layer.self_attn.o_proj.weight[:, gone * per_group : (gone + 1) * per_group] = 0
    assert Dimensions.of(student.config) == replace(size, num_groups=2, num_heads=size.num_heads * 2 // 3)
    assert torch.allclose(logits(student, some_ids()), logits(teacher, some_ids()), atol=1e-5)


def test_removed_channels_equal_channels_masked_to_zero(teacher):
    kept = [torch.randperm(40)[:13].sort().values for _ in range(4)]
    student = cut_model(teacher, replace(whole(teacher), channels=tuple(tuple(k.tolist()) for k in kept)))
    assert not torch.allclose(logits(student, some_ids()), logits(teacher, some_ids()), atol=1e-2)
    with torch.no_grad():
        for layer, stay in zip(teacher.model.layers, kept, strict=True):
            mask = torch.zeros(40).index_fill(0, stay, 1.0)
            layer.mlp.down_proj.weight *= mask
    assert student.config.intermediate_size == 13
    assert torch.allclose(logits(student, some_ids()), logits(teacher, some_ids()), atol=1e-5)


def test_removed_residual_channels_equal_channels_masked_to_zero(teacher):
    """Whatever is written to the residual stream is masked; the norms see the zeros, and the student's are rescaled."""
    kept = torch.randperm(48)[:30].sort().values
    student = cut_model(teacher, replace(whole(teacher), hidden=tuple(kept.tolist())))
    mask = torch.zeros(48).index_fill(0, kept, 1.0)
    with torch.no_grad():
        if teacher.config.tie_word_embeddings:
            teacher.config.tie_word_embeddings = False
            teacher.lm_head.weight = torch.nn.Parameter(teacher.lm_head.weight.clone())
        teacher.model.embed_tokens.weight *= mask
        for layer in teacher.model.layers:
            for part in (layer.self_attn.o_proj, layer.mlp.down_proj):
                part.weight *= mask[:, None]
                if part.bias is not None:
                    part.bias *= mask
    assert student.config.hidden_size == 30
    assert torch.allclose(logits(student, some_ids()), logits(teacher, some_ids()), atol=1e-5)


def everything_cut(teacher):
    cut = replace(
        whole(teacher),
        groups=((0, 2), (1, 2), (0, 1), (0, 2)),
        channels=tuple(tuple(range(first, 40, 3)) for first in (0, 0, 0, 0)),
        hidden=tuple(range(0, 48, 2)),
    )
    return cut_model(teacher, cut.with_layers((0, 1, 3)))


def test_generates_with_a_cache_as_without(teacher):
    student = everything_cut(teacher)
    ids = some_ids(rows=2, length=9)
    options = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    cached = student.generate(ids, attention_mask=torch.ones_like(ids), use_cache=True, **options)
    plain = student.generate(ids, attention_mask=torch.ones_like(ids), use_cache=False, **options)
    assert torch.equal(cached, plain)


@torch.no_grad()
def test_token_by_token_with_a_cache_the_logits_are_those_of_one_pass(teacher):
    """Longer than the sliding windows. A layer that kept its old index would write to another layer's cache."""
    student = everything_cut(teacher)
    ids = some_ids(rows=2, length=15)
    cache, found = None, []
    for place in range(ids.shape[1]):
        out = student(input_ids=ids[:, place : place + 1], past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        found.append(out.logits)
    assert torch.allclose(torch.cat(found, dim=1), logits(student, ids), atol=1e-5)


def test_saved_and_loaded_it_is_the_same(teacher, tmp_path):
    student = everything_cut(teacher)
    student.save_pretrained(tmp_path)
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    size = Dimensions.of(teacher.config)
    expected = Dimensions(3, size.num_heads * 2 // 3, 2, size.head_dim, 14, 24, 97)
    assert Dimensions.of(loaded.config) == expected
    assert torch.equal(logits(loaded, some_ids()), logits(student, some_ids()))


def test_per_layer_settings_follow_their_layers():
    student = cut_model(make_teacher("qwen2-sliding"), whole(make_teacher("qwen2-sliding")).with_layers((0, 1, 3)))
    assert student.config.layer_types == ["full_attention", "sliding_attention", "sliding_attention"]
    assert [layer.self_attn.sliding_window for layer in student.model.layers] == [None, 5, 5]
    student = cut_model(make_teacher("qwen3"), whole(make_teacher("qwen3")).with_layers((0, 2, 3)))
    assert student.config.layer_types == ["full_attention", "sliding_attention", "sliding_attention"]
    assert student.config.max_window_layers == 1
    student = cut_model(make_teacher("smollm3"), whole(make_teacher("smollm3")).with_layers((0, 1, 3)))
    assert student.config.no_rope_layers == [1, 0, 1]


def test_tied_embeddings_stay_tied_and_the_dtype_stays():
    teacher = make_teacher("qwen2").to(torch.bfloat16)
    student = cut_model(teacher, replace(whole(teacher), vocab=tuple(range(0, 97, 2))))
    assert student.lm_head.weight is student.model.embed_tokens.weight
    assert student.dtype == torch.bfloat16
    assert torch.equal(student.lm_head.weight, teacher.lm_head.weight[::2])


def test_cut_vocabulary_keeps_the_logits_of_its_tokens(teacher):
    kept = torch.tensor([0, 1, 2, *range(5, 97, 3)])
    student = cut_model(teacher, replace(whole(teacher), vocab=tuple(kept.tolist())))
    ids = torch.randint(0, len(kept), (3, 15))
    assert torch.equal(logits(student, ids), logits(teacher, kept[ids])[..., kept])


def test_llama_refuses_head_counts_that_do_not_divide_its_width():
    teacher = make_teacher("llama")  # 48 wide, 6 heads
    with pytest.raises(ConfigError, match=r"\(47\) is not a multiple of the number of attention heads \(6\)"):
        cut_model(teacher, replace(whole(teacher), hidden=tuple(range(47))))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (MixtralConfig(), "mixture of experts"),
        (Qwen3NextConfig(), "mixture of experts|other kinds of layers"),
        (Gemma2Config(), "scales its embeddings"),
        (Phi3Config(), "not checked"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_other_architectures_are_refused_in_one_line(config, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        check_config(config)
    assert "\n" not in str(caught.value)


def test_unknown_weights_and_adapters_are_refused(tmp_path):
    teacher = make_teacher("llama")
    check_weights(teacher)
    teacher.model.layers[1].mlp.extra = torch.nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"layers\.1\.mlp\.extra"):
        check_weights(teacher)
    (tmp_path / "config.json").write_text('{"model_type": "made_up"}')
    with pytest.raises(ConfigError, match=r"teacher: .* cannot be loaded .*made_up"):
        load_teacher(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="merge"):
        load_teacher(tmp_path)
