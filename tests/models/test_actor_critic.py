"""The forward that training uses: alignment, padding, agreement with the plain model, saving and exporting."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from rl_distill.maths.batching import completion_lengths_mask, length_sorted, to_padded, token_batch
from rl_distill.models.actor_critic import ActorCritic, clip_gradients, make_critic, parameter_groups
from rl_distill.models.critics import CriticInputs, teacher_scalars

PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14]]
COMPLETIONS = [[20, 21, 1], [22, 1], [23, 24, 25, 26]]


def run(model, prompts=PROMPTS, completions=COMPLETIONS, **kwargs):
    batch = token_batch(prompts, completions, pad_token_id=0)
    return model(batch.input_ids_BL, batch.state_index_N, batch.targets_N, **kwargs)


def test_token_batch_points_at_the_state_before_each_completion_token():
    batch = token_batch([[5, 6, 7], [8]], [[20, 21], [22, 1]], pad_token_id=0)
    assert batch.input_ids_BL.tolist() == [[5, 6, 7, 20, 21], [8, 22, 1, 0, 0]]
    assert batch.state_index_N.tolist() == [2, 3, 5, 6]  # 7 predicts 20, 20 predicts 21; 8 predicts 22, 22 predicts 1
    assert batch.targets_N.tolist() == [20, 21, 22, 1]


def test_to_padded_puts_tokens_back_into_their_rows():
    mask_BT = completion_lengths_mask([2, 3])
    padded = to_padded(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), mask_BT)
    assert padded.tolist() == [[1.0, 2.0, 0.0], [3.0, 4.0, 5.0]]


def test_length_sorted_yields_every_row_once():
    assert list(length_sorted([5, 1, 3, 1, 9], 2)) == [[1, 3], [2, 0], [4]]


def test_logprobs_equal_those_of_the_plain_model_token_by_token(make_policy):
    policy = make_policy()
    output = run(ActorCritic(policy, None))
    expected = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        logits_LV = policy(torch.tensor([prompt + completion])).logits[0].log_softmax(-1)
        expected += [logits_LV[len(prompt) + t - 1, token] for t, token in enumerate(completion)]
    assert torch.allclose(output.logprobs_N, torch.stack(expected), atol=1e-5)


def test_a_completion_scores_the_same_alone_and_in_any_batch(make_policy):
    policy = make_policy()
    model = ActorCritic(policy, make_critic("shared", policy, 32))
    torch.nn.init.normal_(model.critic.head.weight)
    together = run(model)
    sizes = [len(completion) for completion in COMPLETIONS]
    for row, (logprobs, values) in enumerate(
        zip(together.logprobs_N.split(sizes), together.values_N.split(sizes), strict=True)
    ):
        alone = run(model, [PROMPTS[row]], [COMPLETIONS[row]])
        assert torch.allclose(alone.logprobs_N, logprobs, atol=1e-5)
        assert torch.allclose(alone.values_N, values, atol=1e-5)


def test_the_exact_kl_to_an_equal_teacher_is_zero_and_positive_to_another(make_policy):
    policy, other = make_policy(0), make_policy(1)
    model = ActorCritic(policy, None)
    batch = token_batch(PROMPTS, COMPLETIONS, 0)

    def kl(teacher):
        hidden = teacher.get_decoder()(input_ids=batch.input_ids_BL).last_hidden_state.flatten(0, 1)[
            batch.state_index_N
        ]
        return run(model, teacher_hidden_NE=hidden, teacher_weight_VE=teacher.lm_head.weight).kl_N

    assert kl(policy).abs().max() < 1e-5
    assert kl(other).min() > 0


def test_an_untrained_critic_of_every_kind_says_zero(make_policy):
    policy = make_policy()
    hidden, scalars = torch.randn(9, 24), torch.randn(9, 4)
    for kind in ("shared", "separate", "teacher_informed"):
        model = ActorCritic(policy, make_critic(kind, policy, 24))
        values = run(model, teacher_hidden_NE=hidden, teacher_scalars_NK=scalars).values_N
        assert values.shape == (9,)
        assert not values.any()


def test_teacher_scalars_know_only_the_prefix():
    logprobs = torch.tensor([[-1.0, -4.0, -2.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    scalars = teacher_scalars(logprobs, torch.tensor([[0.5, 0.6, 0.7]]), mask)[0]
    assert torch.allclose(scalars[:, 0] * 4, torch.tensor([0.0, -1.0, -4.0]))  # previous
    assert torch.allclose(scalars[:, 1] * 8, torch.tensor([0.0, -1.0, -4.0]))  # lowest so far
    assert torch.allclose(scalars[:, 2] * 16, torch.tensor([0.0, -1.0, -5.0]))  # sum so far
    changed = teacher_scalars(torch.tensor([[-1.0, -4.0, -9.0]]), torch.tensor([[0.5, 0.6, 0.7]]), mask)[0]
    assert torch.equal(scalars, changed)  # the last token's own log-probability is never seen


def test_a_critic_whose_weights_an_engine_keeps_in_bf16_takes_what_the_teacher_says_in_float32(make_policy):
    policy = make_policy()
    critic = make_critic("teacher_informed", policy, 24)
    torch.nn.init.normal_(critic.mlp[-1].weight)
    states, teacher, scalars = torch.randn(5, 32), torch.randn(5, 24), torch.randn(5, 4)
    inputs = CriticInputs(states, torch.zeros(1, 5), torch.arange(5), teacher, scalars)
    wanted_N = critic(inputs)
    values_N = critic.to(torch.bfloat16)(inputs)
    assert values_N.dtype == torch.float32
    assert torch.allclose(values_N, wanted_N, atol=0.2, rtol=0.02)


def test_policy_and_critic_gradients_are_clipped_apart(make_policy):
    policy = make_policy()
    model = ActorCritic(policy, make_critic("teacher_informed", policy, 24))
    for parameter in model.policy.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    for parameter in model.critic.parameters():
        parameter.grad = torch.full_like(parameter, 1e-4)
    norms = clip_gradients(model, 1.0)
    assert norms["grad_norm"] > 1000
    assert norms["grad_norm_critic"] < 1
    clipped = torch.stack([p.grad.norm() for p in model.policy.parameters()]).norm()
    assert clipped == pytest.approx(1.0, rel=1e-3)
    assert all(torch.allclose(p.grad, torch.full_like(p, 1e-4)) for p in model.critic.parameters())


def test_every_parameter_is_in_exactly_one_optimizer_group(make_policy):
    policy = make_policy()
    model = ActorCritic(policy, make_critic("shared", policy, 32))
    groups = parameter_groups(model, 1e-3, 1e-2, 0.1)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert [group["lr"] for group in groups] == [1e-3, 1e-3, 1e-2]
    assert all(p.ndim >= 2 for p in groups[0]["params"])
    assert groups[1]["weight_decay"] == 0.0


def test_the_saved_model_loads_again_and_the_policy_alone_is_an_ordinary_folder(make_policy, tmp_path):
    from safetensors.torch import load_file

    policy = make_policy()
    model = ActorCritic(policy, make_critic("teacher_informed", policy, 24))
    model.save_pretrained(tmp_path / "both")
    saved = load_file(tmp_path / "both" / "model.safetensors")
    assert any(name.startswith("critic.") for name in saved)
    other = ActorCritic(make_policy(9), make_critic("teacher_informed", policy, 24))
    missing, unexpected = other.load_state_dict(saved, strict=False)
    assert not unexpected
    assert set(missing) <= {"policy.lm_head.weight"}  # tied to the embedding, stored once
    assert torch.equal(run(ActorCritic(other.policy, None)).logprobs_N, run(ActorCritic(policy, None)).logprobs_N)
    model.policy.save_pretrained(tmp_path / "student")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert torch.equal(run(ActorCritic(loaded.eval(), None)).logprobs_N, run(ActorCritic(policy, None)).logprobs_N)
