"""Rows that share one of a batch: the numbers and gradients of rows alone, or a refusal."""

import pytest
import torch

from rl_distill import distributed
from rl_distill.config import ConfigError, load_config
from rl_distill.maths.batching import first_fit, packed_batch, token_batch
from rl_distill.models.actor_critic import ActorCritic, make_critic
from rl_distill.models.families import FAMILIES, tiny_config
from rl_distill.models.loading import auto_class
from rl_distill.models.packing import keeps_rows_apart, packs
from rl_distill.ppo.minibatches import micro_batches
from tests.tiny_run import make_config, make_trainer

PROMPTS = [[5, 6, 7], [9], [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21], [30, 31], [8, 8, 8]]
COMPLETIONS = [[40, 41], [42, 43, 44], [45, 46, 47, 48], [49], [50, 1]]
REFUSED = {"Qwen3-Next", "Qwen3.5", "Qwen3.5-MoE", "LFM2", "GPT-OSS"}


def policy_of(name):
    torch.manual_seed(0)
    config = tiny_config(name, 64)
    policy = auto_class(config).from_config(config).eval()
    for parameter in policy.parameters():
        if parameter.ndim >= 2:
            parameter.data.mul_(6.0)
    return policy


@pytest.mark.parametrize(
    ("lengths", "capacity", "expected"),
    [([5, 3, 2, 1, 4], 5, [[0], [4, 3], [1, 2]]), ([2, 2, 2], 5, [[0, 1], [2]]), ([3], 3, [[0]]), ([], 4, [])],
)
def test_first_fit_decreasing(lengths, capacity, expected):
    assert first_fit(lengths, capacity) == expected


def test_a_packed_batch_by_hand():
    batch = packed_batch([[5, 6, 7], [9], [8]], [[1, 2], [3], [4]], 0)
    assert batch.input_ids_BL.tolist() == [[5, 6, 7, 1, 2], [9, 3, 8, 4, 0]]
    assert batch.position_ids_BL.tolist() == [[0, 1, 2, 3, 4], [0, 1, 0, 1, 0]]
    assert batch.state_index_N.tolist() == [2, 3, 5, 7]
    assert batch.targets_N.tolist() == [1, 2, 3, 4]


def test_rows_that_do_not_fit_together_are_an_ordinary_batch():
    packed, plain = (make([[5, 6], [7, 8]], [[9], [9]], 0) for make in (packed_batch, token_batch))
    assert packed.position_ids_BL is None
    assert packed.input_ids_BL.tolist() == plain.input_ids_BL.tolist()


def test_one_row_of_ten_less_is_not_worth_a_mask():
    prompts, completions = [[5]] * 2 + [[5, 6, 7]] * 8, [[9]] * 10
    assert packed_batch(prompts, completions, 0).position_ids_BL is None
    assert len(packed_batch(prompts[:6], completions[:6], 0).input_ids_BL) == 5


def numbers(model, batch):
    """(log-probs and values of each token, every parameter's gradient of a loss of both)."""
    model.zero_grad()
    output = model(batch.input_ids_BL, batch.state_index_N, batch.targets_N, position_ids_BL=batch.position_ids_BL)
    weights_N = torch.linspace(-1, 1, len(batch.targets_N), dtype=output.logprobs_N.dtype)
    ((output.logprobs_N + output.entropy_N + output.values_N) * weights_N).mean().backward()
    return (output.logprobs_N, output.values_N), [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize("name", ["Qwen2", "Llama"])
def test_gradients_are_those_of_padded_rows(name, critic):
    policy = policy_of(name)
    model = ActorCritic(policy, make_critic(critic, policy, 0)).double()
    model.critic.head.weight.data.normal_()
    batches = [make(PROMPTS, COMPLETIONS, 0) for make in (packed_batch, token_batch)]
    assert len(batches[0].input_ids_BL) < len(batches[1].input_ids_BL)
    (found, gradients), (expected, expected_gradients) = (numbers(model, batch) for batch in batches)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if not family.refused])
def test_families_pack_or_are_refused(name):
    policy = policy_of(name)
    assert keeps_rows_apart(policy) is (name not in REFUSED)
    if name in REFUSED:
        with pytest.raises(ConfigError, match=r"^ppo\.packing: on needs .*: set it to off$"):
            packs(load_config(None, {"ppo.packing": "on"}), policy)
        assert not packs(load_config(None, {"ppo.packing": "auto"}), policy)
        return
    model = ActorCritic(policy, make_critic("shared", policy, 0))
    (found, _), (expected, _) = (numbers(model, make(PROMPTS, COMPLETIONS, 0)) for make in (packed_batch, token_batch))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_step_has_the_same_gradients(tmp_path):
    trainer = make_trainer(tmp_path, ppo__num_minibatches=1, ppo__micro_batch_size=8, ppo__packing="on")
    assert trainer.packed
    rollout = trainer.collector.collect(trainer.actor_critic, 0)
    rollout.prompt_ids[::2] = [ids[:2] for ids in rollout.prompt_ids[::2]]  # so that rows fit together
    found = {}
    for packed in (False, True):
        pieces = micro_batches(rollout, range(8), trainer.config, trainer.collector.tokenizer.pad_token_id, packed)
        assert any("position_ids_BL" in piece for piece in pieces) is packed
        trainer.model.zero_grad()
        for piece in pieces:
            trainer.compute_loss(trainer.model, piece).backward()
        found[packed] = [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]
    torch.testing.assert_close(found[True], found[False], rtol=1e-5, atol=1e-6)


def test_models_in_parts_are_not_asked(monkeypatch):
    monkeypatch.setattr(distributed, "is_fsdp", lambda: True)
    assert not packs(load_config(None, {}), None)
    with pytest.raises(ConfigError, match="cannot be had under DeepSpeed or FSDP"):
        packs(load_config(None, {"ppo.packing": "on"}), None)


def test_off_is_off(tmp_path):
    config = make_config(tmp_path, ppo__packing="off")
    assert not packs(config, None)
