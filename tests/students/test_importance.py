"""Importance against the same numbers worked out from the model's own formulas, and the choices made from it."""

from __future__ import annotations

import math

import pytest
import torch

from rl_distill.students.calibration import TokenBatch
from rl_distill.students.importance import measure
from rl_distill.students.selection import choose, top, width_warnings
from rl_distill.students.shape import StudentShapeConfig
from rl_distill.students.surgery import Dimensions

from .models import NAMES, make_teacher, some_ids


def two_batches():
    """Of different lengths, with masks that leave out prompts and padding."""
    first, second = some_ids(3, 17), some_ids(2, 9)
    scored = torch.ones(3, 17, dtype=torch.bool)
    scored[0, :6] = scored[1, 11:] = False
    return [TokenBatch(first, scored), TokenBatch(second, torch.ones(2, 9, dtype=torch.bool))]


@torch.no_grad()
def states_by_hand(model, batches):
    """The residual stream at every depth, token by token: (L + 1) lists of vectors. Layers are run by hand."""
    found = []
    for ids, scored in batches:
        caught = {}
        handles = [
            layer.register_forward_hook(lambda _, __, out, i=i, caught=caught: caught.__setitem__(i + 1, out))
            for i, layer in enumerate(model.model.layers)
        ]
        model(input_ids=ids, use_cache=False)
        for handle in handles:
            handle.remove()
        caught[0] = model.model.embed_tokens(ids)
        found.append([caught[i][scored] for i in range(len(caught))])
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


@pytest.mark.parametrize("name", NAMES)
def test_block_influence_is_one_minus_the_mean_cosine(name):
    model = make_teacher(name)
    importance = measure(model, two_batches())
    states = states_by_hand(model, two_batches())
    for layer, (x, y) in enumerate(zip(states, states[1:])):  # noqa: RUF007
        cosines = [sum(a * b).item() / math.sqrt(sum(a * a).item() * sum(b * b).item()) for a, b in zip(x, y)]
        assert len(cosines) == 3 * 17 - 12 + 18
        assert float(importance.block_influence_L[layer]) == pytest.approx(1 - sum(cosines) / len(cosines), abs=1e-6)
        angles = [math.acos(max(-1, min(1, cosine))) / math.pi for cosine in cosines]
        assert float(importance.angle_SS[layer, layer + 1]) == pytest.approx(sum(angles) / len(angles), abs=1e-5)
        updates = [(b - a).norm().item() / a.norm().item() for a, b in zip(x, y)]
        assert float(importance.update_L[layer]) == pytest.approx(sum(updates) / len(updates), rel=1e-5)


@torch.no_grad()
def test_heads_and_channels_are_root_mean_squares_of_what_they_hand_on():
    """The first layer of a Llama, from its weights: attention of every head, gated channels, normed residual."""
    model = make_teacher("llama")
    batch = two_batches()[0]
    importance = measure(model, [batch])
    layer, ids = model.model.layers[0], batch.ids_BT
    x = layer.input_layernorm(model.model.embed_tokens(ids))
    attention = layer.self_attn
    q, k, v = (
        part(x).view(3, 17, -1, 8).transpose(1, 2) for part in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    cos, sin = model.model.rotary_emb(x, torch.arange(17)[None])

    def rotated(y):
        left, right = y[..., :4], y[..., 4:]
        return y * cos[:, None] + torch.cat([-right, left], dim=-1) * sin[:, None]

    heads = []
    for head in range(6):
        scores = rotated(q)[:, head] @ rotated(k)[:, head // 2].mT / math.sqrt(8)
        scores = scores.masked_fill(torch.ones(17, 17).triu(1).bool(), -math.inf)
        heads.append(scores.softmax(-1) @ v[:, head // 2])
    groups = [torch.cat(heads[2 * g : 2 * g + 2], dim=-1)[batch.scored_BT] for g in range(3)]
    expected = torch.stack([group.square().mean().sqrt() for group in groups])
    assert torch.allclose(importance.heads_LG[0].float(), expected, rtol=1e-4)

    middle = model.model.embed_tokens(ids) + attention.o_proj(torch.cat(heads, dim=-1))
    y = layer.post_attention_layernorm(middle)
    channels = torch.nn.functional.silu(layer.mlp.gate_proj(y)) * layer.mlp.up_proj(y)
    expected = channels[batch.scored_BT].square().mean(0).sqrt()
    assert torch.allclose(importance.channels_LF[0].float(), expected, rtol=1e-4)


@torch.no_grad()
def test_residual_channels_count_behind_all_norms():
    model = make_teacher("qwen3")
    batch = two_batches()[0]
    importance = measure(model, [batch])
    norms = [n for layer in model.model.layers for n in (layer.input_layernorm, layer.post_attention_layernorm)]
    caught = []
    for norm in (*norms, model.model.norm):
        norm.register_forward_hook(lambda _, __, out: caught.append(out[batch.scored_BT]))
    model(input_ids=batch.ids_BT)
    assert torch.allclose(importance.hidden_D.float(), torch.cat(caught).square().mean(0).sqrt(), rtol=1e-5)


def test_padding_and_batches_change_nothing():
    model = make_teacher("mistral")
    (ids, scored), other = two_batches()
    padded = TokenBatch(torch.nn.functional.pad(ids, (0, 4), value=7), torch.nn.functional.pad(scored, (0, 4)))
    one = measure(model, [TokenBatch(ids, scored), other])
    two = measure(
        model,
        [
            TokenBatch(ids[2:], scored[2:]),
            padded._replace(ids_BT=padded.ids_BT[:2], scored_BT=padded.scored_BT[:2]),
            other,
        ],
    )
    for name in ("cosine_SS", "angle_SS", "update_L", "heads_LG", "channels_LF", "hidden_D"):
        assert torch.allclose(getattr(one, name), getattr(two, name), atol=1e-5), name


def test_measuring_leaves_no_hook_behind():
    model = make_teacher("llama")
    measure(model, two_batches())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@torch.no_grad()
def test_planted_unimportant_parts_are_the_ones_that_go():
    model = make_teacher("qwen2")
    for place, layer in enumerate(model.model.layers):
        group = (place + 1) % 3
        layer.self_attn.v_proj.weight[group * 8 : (group + 1) * 8] *= 1e-3
        layer.self_attn.v_proj.bias[group * 8 : (group + 1) * 8] *= 1e-3
        layer.mlp.up_proj.weight[place : place + 20] *= 1e-3
    model.model.layers[2].self_attn.o_proj.weight *= 1e-4
    model.model.layers[2].mlp.down_proj.weight *= 1e-4
    shape = StudentShapeConfig(layers="block_influence:3", heads="2", ffn="0.5")
    cut = choose(model, shape, measure(model, two_batches()))
    assert cut.layers == (0, 1, 3)
    assert cut.groups == ((0, 2), (0, 1), (0, 2))
    for place, kept in zip((0, 1, 3), cut.channels, strict=True):
        assert set(kept) == set(range(40)) - set(range(place, place + 20))
    by_norm = choose(model, StudentShapeConfig(layers="activation_norm:3"), measure(model, two_batches()))
    assert by_norm.layers == (0, 1, 3)


@torch.no_grad()
def test_criteria_on_weights_alone():
    model = make_teacher("qwen3")
    layer = model.model.layers[1]
    layer.mlp.gate_proj.weight[:30] *= 0.01
    layer.mlp.up_proj.weight[:30] *= 0.01
    layer.mlp.down_proj.weight[:, :30] *= 0.01
    for part, rows in ((layer.self_attn.q_proj, 24), (layer.self_attn.k_proj, 12), (layer.self_attn.v_proj, 12)):
        part.weight[rows : 2 * rows] += 100.0  # a large mean is no variance
        part.weight[2 * rows :] *= 0.5
    layer.self_attn.o_proj.weight[:, 48:] *= 0.5
    layer.self_attn.o_proj.weight[:, 24:48] += 100.0
    cut = choose(model, StudentShapeConfig(heads="weight_variance:2", ffn="magnitude:10"), None)
    assert cut.groups[1] == (0, 1)
    assert cut.channels[1] == tuple(range(30, 40))
    assert all(len(groups) == 2 for groups in cut.groups)


def test_of_equal_scores_the_first_stays():
    assert top(torch.tensor([1.0, 3.0, 1.0, 1.0, 2.0]), 3) == (0, 1, 4)


def test_awkward_widths_are_named():
    before = Dimensions(2, 8, 4, 64, 1024, 512, 100)
    assert width_warnings(before, before) == []
    assert width_warnings(before, Dimensions(2, 4, 2, 64, 512, 256, 90)) == []
    warned = width_warnings(before, Dimensions(2, 6, 3, 64, 700, 480, 100))
    assert [text.split(":")[0] for text in warned] == ["ffn", "hidden", "heads"]
    assert "700 is not a multiple of 32" in warned[0]
    assert "480 is not a multiple of 128" in warned[1]
    assert "384 is not a multiple of 256" in warned[2]
    odd = Dimensions(2, 8, 4, 64, 1000, 96, 100)  # 1000 was no multiple of 128 before either
    assert width_warnings(odd, Dimensions(2, 8, 4, 64, 992, 96, 100)) == []
