"""Settings of a step that change the numbers: temperature schedule, top-k anchor, entropy bonus, dual clip."""

import pytest
import torch

from rl_distill.maths.kl import exact_kl
from rl_distill.ppo.minibatches import micro_batches
from tests.tiny_run import make_config, make_trainer, weights


def test_the_temperature_goes_linearly_and_teacher_and_log_probs_follow(tmp_path):
    trainer = make_trainer(
        tmp_path,
        ppo__num_steps=3,
        generation__temperature=1.5,
        generation__temperature_end=0.5,
        anchor__schedule="fixed",
        teacher__autocast="off",
    )
    temperatures = []
    for step in range(3):
        rollout = trainer.collector.collect(trainer.model, step)
        temperatures.append(rollout.temperature)
        teacher = trainer.collector.teacher.model
        row = [*rollout.prompt_ids[0], *rollout.completions[0].token_ids]
        logits_LV = teacher(torch.tensor([row])).logits[0, len(rollout.prompt_ids[0]) - 1 : -1]
        expected = (logits_LV / rollout.temperature).log_softmax(-1)
        targets = torch.tensor(rollout.completions[0].token_ids)
        found = rollout.states.teacher.logprobs_N[: len(targets)]
        assert torch.allclose(found, expected[range(len(targets)), targets], atol=1e-5)
    assert temperatures == [1.5, 1.0, 0.5]
    piece = next(iter(micro_batches(rollout, list(range(8)), trainer.config, 0)))
    assert piece["temperature"] == 0.5
    hidden_ND = trainer.model.policy.get_decoder()(input_ids=piece["input_ids_BL"]).last_hidden_state.flatten(0, 1)
    logits_NV = trainer.model.policy.lm_head(hidden_ND[piece["state_index_N"]])
    expected = (logits_NV / 0.5).log_softmax(-1).gather(1, piece["targets_N"][:, None])[:, 0]
    assert torch.allclose(piece["old_logprobs_N"], expected, atol=1e-5)
    trainer.train()
    record = next(r for r in reversed(trainer.state.log_history) if "policy/ratio" in r)
    assert record["policy/ratio"] == pytest.approx(1.0, abs=0.05)


def top_k_losses(trainer, k):
    trainer.collector.top_k = k
    rollout = trainer.collector.collect(trainer.model, 0)
    piece = next(iter(micro_batches(rollout, list(range(8)), trainer.config, 0)))
    names = ("teacher_hidden_NE", "teacher_scalars_NK", "teacher_top_ids_NK")
    output = trainer.model(
        piece["input_ids_BL"],
        piece["state_index_N"],
        piece["targets_N"],
        teacher_weight_VE=trainer.collector.teacher.lm_head_weight_VE,
        **{name: piece[name] for name in names},
    )
    return trainer._anchor(output, piece), output, piece


def test_the_top_k_anchor_is_below_the_exact_kl_and_meets_it_at_the_whole_vocabulary(tmp_path):
    trainer = make_trainer(
        tmp_path, anchor__estimator="top_k", anchor__schedule="fixed", teacher__autocast="off", ppo__micro_batch_size=8
    )
    losses = []
    for k in (4, 64, len(trainer.collector.tokenizer)):
        loss, output, piece = top_k_losses(trainer, k)
        assert output.top_logprobs_NK.shape == (len(piece["targets_N"]), k)
        losses.append(float(loss))
    exact = float(output.kl_N.sum() / piece["count"])
    assert losses[0] < losses[1] < losses[2]
    assert losses[2] == pytest.approx(exact, rel=1e-3)
    by_hand = exact_kl(
        trainer.model.policy.lm_head(
            trainer.model.policy.get_decoder()(input_ids=piece["input_ids_BL"]).last_hidden_state.flatten(0, 1)[
                piece["state_index_N"]
            ]
        ),
        trainer.collector.teacher.model.lm_head(piece["teacher_hidden_NE"]),
    )
    assert torch.allclose(output.kl_N, by_hand, atol=1e-5)


def test_the_top_k_anchor_pulls_the_student_to_the_teacher(tmp_path):
    trainer = make_trainer(
        tmp_path,
        ppo__num_steps=8,
        ppo__policy_coef=0,
        ppo__learning_rate=5e-3,
        anchor__schedule="fixed",
        anchor__estimator="top_k",
        anchor__top_k=64,
    )
    trainer.train()
    kl = [record["kl"] for record in trainer.state.log_history if "kl" in record]
    assert kl[-1] < 0.85 * kl[0]


def test_an_entropy_bonus_alone_raises_the_entropy(tmp_path):
    trainer = make_trainer(
        tmp_path,
        ppo__num_steps=6,
        ppo__policy_coef=0,
        ppo__entropy_coef=1.0,
        ppo__learning_rate=5e-3,
        anchor__placement="none",
    )
    with torch.no_grad():
        trainer.model.policy.model.norm.weight.mul_(8)  # far from uniform, so that there is entropy to gain
    trainer.train()
    entropy = [record["entropy"] for record in trainer.state.log_history if "entropy" in record]
    assert entropy[-1] > entropy[0] + 0.05


def test_dual_clip_bounds_the_loss_of_a_bad_token_that_became_likelier(tmp_path):
    options = {"anchor__placement": "none", "ppo__advantage": "group_mean", "ppo__group_size": 2}
    losses = {}
    for dual_clip in (None, 3.0):
        trainer = make_trainer(tmp_path / str(dual_clip), **options, ppo__dual_clip=dual_clip)
        rollout = trainer.collector.collect(trainer.model, 0)
        rollout.advantages_N = torch.full_like(rollout.advantages_N, -1.0)
        piece = next(iter(micro_batches(rollout, list(range(8)), trainer.config, 0)))
        piece["old_logprobs_N"] -= 4.0  # the policy is now exp(4) = 55 times likelier
        piece["trained_count"] = torch.tensor(float(len(piece["targets_N"])))
        losses[dual_clip] = float(trainer.compute_loss(trainer.model, piece))
    assert losses[None] == pytest.approx(54.6, rel=0.01)
    assert losses[3.0] == pytest.approx(3.0, rel=1e-4)


def test_weight_decay_acts_on_matrices_only(tmp_path):
    options = {"anchor__placement": "none", "ppo__policy_coef": 0, "ppo__value_coef": 0, "ppo__learning_rate": 1e-2}
    trainer = make_trainer(tmp_path, **options, ppo__weight_decay=0.5)
    before = weights(trainer)
    trainer.train()
    name = "policy.model.layers.0.mlp.up_proj.weight"
    assert weights(trainer)[name].norm() < 0.999 * before[name].norm()
    assert torch.equal(weights(trainer)["policy.model.norm.weight"], before["policy.model.norm.weight"])


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"vllm_server needs generation\.vllm\.server_base_url"):
        make_config("unused", generation__engine="vllm_server")
