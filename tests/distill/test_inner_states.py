"""Recorded layers equal what transformers itself reports; losses by hand; maps by rule."""

import copy
import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from rl_distill.distill.inner_states import LayerRecorder, attention_divergence, hidden_distance, layer_map

SHAPE = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=8)),
    "mistral with a window": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_recorded_states_and_maps_are_those_that_transformers_reports(name):
    model = MODELS[name]().eval()
    input_ids = torch.randint(0, 64, (2, 9))
    with torch.no_grad(), LayerRecorder(model, {0, 2}, {1}, embeddings=True) as recorder:
        logits = model(input_ids, use_cache=False).logits
        maps = recorder.attention_maps_BHLL(1)
        again = model(input_ids, use_cache=False).logits
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        theirs = eager(input_ids, use_cache=False, output_hidden_states=True, output_attentions=True)
    assert torch.allclose(recorder.hidden_BLD[0], theirs.hidden_states[1], atol=1e-5)
    assert torch.allclose(model.get_decoder().norm(recorder.hidden_BLD[2]), theirs.hidden_states[3], atol=1e-5)
    assert torch.allclose(recorder.embeddings_BLD, theirs.hidden_states[0], atol=1e-6)
    assert torch.allclose(maps, theirs.attentions[1], atol=1e-6)
    assert torch.equal(logits, again), "recording must leave the model's own attention as it was"


def test_nothing_stays_hooked_after_the_context():
    model = MODELS["llama"]()
    with LayerRecorder(model, {0}, {1}):
        pass
    modules = [*model.get_decoder().layers, *(layer.self_attn for layer in model.get_decoder().layers)]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def test_maps_of_layers():
    assert layer_map("uniform", 2, 4) == {0: 1, 1: 3}
    assert layer_map("uniform", 3, 7) == {0: 1, 1: 4, 2: 6}
    assert layer_map("last", 2, 4) == {1: 3}
    assert layer_map({"1": 3, 0: "0"}, 2, 4) == {0: 0, 1: 3}
    with pytest.raises(ValueError, match=r"layer map \{6: 9\}: the student has layers 0 to 1, the teacher 0 to 3"):
        layer_map({6: 9}, 2, 4)
    with pytest.raises(ValueError, match="uniform, last, or a mapping"):
        layer_map("frist", 2, 4)


def test_hidden_distances_by_hand():
    student, teacher = torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 2.0], [3.0, 4.0]])
    assert hidden_distance(student, teacher, None, "mse").tolist() == [2.5, 0.0]  # (1 + 4) / 2
    assert hidden_distance(student, teacher, None, "cosine").tolist() == pytest.approx([1.0, 0.0], abs=1e-6)
    projection = torch.nn.Linear(2, 2, bias=False)
    projection.weight.data = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert hidden_distance(student[1:], torch.tensor([[4.0, 3.0]]), projection, "mse").tolist() == [0.0]


def test_attention_divergence_by_hand_and_with_other_numbers_of_heads():
    student = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]])
    teacher = torch.tensor([[[[1.0, 0.0], [0.75, 0.25]]]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert attention_divergence(student, teacher)[0].tolist() == pytest.approx([0.0, expected], abs=1e-6)
    two = torch.cat([teacher, torch.tensor([[[[1.0, 0.0], [0.25, 0.75]]]])], 1)  # whose mean is the student's map
    assert attention_divergence(student, two).abs().max() < 1e-6
    three = torch.cat([two, student], 1)  # 2 and 3 heads: both sides as one
    assert attention_divergence(two, three).abs().max() < 1e-6
