"""Which layers stay: choices by hand-written scores, and the greedy search against trying everything."""

from __future__ import annotations

import copy

import pytest
import torch

from rl_distill.config import ConfigError
from rl_distill.students.depth import (
    bypassed,
    choose_layers,
    divergences,
    greedy_layers,
    highest,
    uniform,
    without_block,
)
from rl_distill.students.shape import LAYER_CRITERIA, parse_choice

from .models import logits, make_teacher, some_ids
from .test_importance import two_batches


@pytest.mark.parametrize(
    ("num_layers", "count", "expected"),
    [(6, 3, (0, 2, 5)), (4, 2, (0, 3)), (12, 6, (0, 2, 4, 7, 9, 11)), (5, 5, (0, 1, 2, 3, 4)), (1, 1, (0,))],
)
def test_evenly_spaced_layers(num_layers, count, expected):
    assert uniform(num_layers, count) == expected


def test_first_and_last_stay_however_low_they_score():
    assert highest(torch.tensor([0.0, 0.3, 0.5, 0.1, 0.4, 0.0]), 4) == (0, 2, 4, 5)
    assert highest(torch.tensor([0.0, 0.3, 0.5, 0.1, 0.4, 0.0]), 2) == (0, 5)


def test_the_block_with_the_smallest_angle_goes():
    angle = torch.full((7, 7), 0.5)  # six layers
    angle[0, 2] = 0.01  # would take the first layer
    angle[4, 6] = 0.01  # would take the last
    angle[2, 4] = 0.1
    assert without_block(angle, 4) == (0, 1, 4, 5)
    angle[3, 4] = 0.05
    assert without_block(angle, 5) == (0, 1, 2, 4, 5)


def choice(text):
    return parse_choice("layers", text, LAYER_CRITERIA)


def test_indices_and_shares():
    assert choose_layers(choice("0,2,3"), 4, None) == (0, 2, 3)
    assert choose_layers(choice("50%"), 6, None) == (0, 2, 5)
    assert choose_layers(choice("block_influence:100%"), 3, None) == (0, 1, 2)
    with pytest.raises(ConfigError, match="4 layers, 0 to 3"):
        choose_layers(choice("0,4"), 4, None)
    with pytest.raises(ConfigError, match="at least 2 of 4"):
        choose_layers(choice("cosine:1"), 4, None)


@pytest.mark.parametrize("name", ["qwen2-sliding", "llama", "smollm3"])
def test_bypassed_layers_hand_on_what_they_get(name):
    model = make_teacher(name)
    before = logits(model, some_ids())
    with bypassed(model, {1, 2}):
        found = logits(model, some_ids())
    assert torch.equal(logits(model, some_ids()), before)
    assert torch.allclose(found, logits(silenced(model, [1, 2]), some_ids()), atol=1e-6)


@torch.no_grad()
def silenced(model, layers):
    """A copy whose layers add nothing to the residual stream."""
    model = copy.deepcopy(model)
    for layer in layers:
        for part in (model.model.layers[layer].self_attn.o_proj, model.model.layers[layer].mlp.down_proj):
            for parameter in part.parameters():
                parameter.zero_()
    return model


def divergence(model, gone, found_on=None):
    """KL(teacher || teacher without these layers), summed in float64."""
    total = 0.0
    student = silenced(model, gone)
    for ids, scored in two_batches() if found_on is None else found_on:
        logq, logp = (logits(m, ids)[:, :-1][scored[:, 1:]].double().log_softmax(-1) for m in (model, student))
        total += float((logq.exp() * (logq - logp)).sum())
    return total


@pytest.mark.parametrize("name", ["qwen2-sliding", "llama", "smollm3"])
@torch.no_grad()
def test_a_trial_leaves_out_what_is_gone_already_below_and_above(name):
    model = make_teacher(name, num_hidden_layers=6)
    batch = two_batches()[0]
    final = model.model(input_ids=batch.ids_BT, use_cache=False).last_hidden_state
    found = divergences(model, batch, final, [0, 1, 3, 5])
    for layer in (1, 3):
        assert float(found[layer]) == pytest.approx(divergence(model, [2, 4, layer], [batch]), rel=1e-4)
    assert found[[0, 2, 4, 5]].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("name", ["qwen3", "qwen2-sliding", "smollm3"])
def test_the_greedy_search_removes_what_diverges_least_at_every_step(name):
    model = make_teacher(name, seed=3)
    first = min((1, 2), key=lambda layer: divergence(model, [layer]))
    assert greedy_layers(model, two_batches(), 3) == tuple(layer for layer in range(4) if layer != first)
    assert greedy_layers(model, two_batches(), 2) == (0, 3)
    assert divergence(model, [1]) != pytest.approx(divergence(model, [2]), rel=1e-3)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_step_counts_what_the_steps_before_removed(seed):
    model = make_teacher("llama-mha", seed, num_hidden_layers=6)
    gone = []
    for _ in range(3):
        gone.append(min(set(range(1, 5)) - set(gone), key=lambda layer: divergence(model, [*gone, layer])))
    assert greedy_layers(model, two_batches(), 3) == tuple(layer for layer in range(6) if layer not in gone)
