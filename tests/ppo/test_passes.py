"""Passes over the vocabulary that are left out: what is left gives the same numbers."""

import pytest
import torch

from rl_distill.ppo import rollout as rollout_module
from rl_distill.ppo import trainer as trainer_module
from rl_distill.ppo.rollout import TrainingStopped
from rl_distill.ppo.rollout_building import has_one_update
from rl_distill.teachers.colocated import ColocatedTeacher
from tests.tiny_run import make_config, make_trainer, weights

GRPO = {
    "ppo__advantage": "group_mean",
    "ppo__group_size": 4,
    "ppo__num_minibatches": 1,
    "ppo__num_steps": 2,
    "ppo__entropy_coef": 0.05,
    "anchor__schedule": "fixed",
    "teacher__autocast": "off",
}


def collected(folder, monkeypatch, joined, **settings):
    """(the rollout, how often the teacher applied its head in a pass of its own)."""
    trainer = make_trainer(folder, teacher__autocast="off", **settings)
    if not joined:
        monkeypatch.setattr(trainer.collector, "_joins_heads", lambda scoring: False)
    own, score = [], ColocatedTeacher._score_batch

    def counted(teacher, prompts, completions, temperature, states_only):
        own.append(not states_only)
        return score(teacher, prompts, completions, temperature, states_only)

    monkeypatch.setattr(ColocatedTeacher, "_score_batch", counted)
    return trainer.collector.collect(trainer.actor_critic, 0), sum(own)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ppo__critic": "shared", "generation__temperature": 0.7},
        {"anchor__estimator": "top_k", "anchor__top_k": 4, "generation__batch_size": 3},
    ],
)
def test_the_teachers_numbers_are_those_of_its_own_pass(tmp_path, monkeypatch, settings):
    with monkeypatch.context() as patch:
        expected, passes = collected(tmp_path / "own", patch, joined=False, **settings)
        assert passes > 0
    found, passes = collected(tmp_path / "joined", monkeypatch, joined=True, **settings)
    assert passes == 0
    for name in ("logprobs_N", "entropy_N", "kl_N", "values_N", "teacher_scalars_NK"):
        torch.testing.assert_close(getattr(found.states, name), getattr(expected.states, name), rtol=1e-6, atol=1e-6)
    for name in ("logprobs_N", "entropy_N"):
        found_N, expected_N = getattr(found.states.teacher, name), getattr(expected.states.teacher, name)
        torch.testing.assert_close(found_N, expected_N, rtol=1e-6, atol=1e-6)
    assert found.scores.total == pytest.approx(expected.scores.total, abs=1e-6)
    torch.testing.assert_close(found.advantages_N, expected.advantages_N, rtol=1e-5, atol=1e-5)


def test_without_an_anchor_the_kl_is_estimated(tmp_path, monkeypatch):
    found, passes = collected(tmp_path, monkeypatch, joined=True, anchor__placement="none")
    assert passes > 0
    k1_N = found.states.logprobs_N - found.states.teacher.logprobs_N
    torch.testing.assert_close(found.states.kl_N, k1_N)


@pytest.mark.parametrize("settings", [{}, {"anchor__estimator": "k3"}, {"anchor__placement": "none"}])
def test_one_update_is_the_same_without_a_pass_for_old_logprobs(tmp_path, monkeypatch, settings):
    settings = GRPO | settings
    skipping = make_trainer(tmp_path / "skipping", **settings)
    assert has_one_update(skipping.config)
    skipping.train()
    for module in (trainer_module, rollout_module):
        monkeypatch.setattr(module, "has_one_update", lambda config: False)
    whole = make_trainer(tmp_path / "whole", **settings)
    whole.train()
    for name, expected in weights(whole).items():
        torch.testing.assert_close(weights(skipping)[name], expected, rtol=1e-6, atol=1e-6, msg=name)
    found, expected = ([x for x in t.state.log_history if "loss" in x] for t in (skipping, whole))
    assert len(found) == 2
    for mine, theirs in zip(found, expected, strict=True):
        assert mine["policy/ratio"] == pytest.approx(1)
        for name in ("loss", "entropy", "kl", "reward", "grad_norm"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize(
    "settings",
    [
        {"ppo__num_epochs": 2},
        {"ppo__num_minibatches": 2},
        {"ppo__advantage": "gae"},
        {"anchor__placement": "reward", "anchor__estimator": "k1"},
        {"anchor__schedule": "adaptive"},
        {"generation__top_p": 0.9},
    ],
)
def test_where_something_reads_the_old_logprobs_they_are_computed(tmp_path, settings):
    assert not has_one_update(make_config(tmp_path, **GRPO | settings))


def test_a_run_with_one_update_stops_at_a_kl_too(tmp_path):
    trainer = make_trainer(tmp_path, ppo__stop_at_kl=1e-6, **GRPO)
    with pytest.raises(TrainingStopped, match=r"step 0: KL to the teacher is .* \(limit ppo\.stop_at_kl: 1e-06\)"):
        trainer.train()
