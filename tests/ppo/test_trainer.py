"""PPO on transformers.Trainer: each defect of the trainer it replaces is a test here."""

import json
import math
import random

import pytest
import torch
from transformers import TrainerCallback

from rl_distill import distributed, pipeline
from rl_distill.config import ConfigError
from rl_distill.ppo import checkpoint
from rl_distill.ppo.minibatches import micro_batches, minibatches
from rl_distill.ppo.rollout import TrainingStopped
from rl_distill.ppo.rollout_metrics import reward_metrics, rollout_metrics
from rl_distill.types import Finish
from tests.tiny_run import make_config, make_context, make_trainer, weights


def count_steps(trainer) -> int:
    steps = []
    trainer.create_optimizer()
    trainer.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    trainer.train()
    return len(steps)


@pytest.mark.parametrize(("epochs", "nminibatches", "micro"), [(1, 1, 8), (1, 2, 4), (2, 2, 1), (3, 4, 2)])
def test_a_step_does_exactly_epochs_times_minibatches_optimizer_steps(tmp_path, epochs, nminibatches, micro):
    trainer = make_trainer(
        tmp_path, ppo__num_epochs=epochs, ppo__num_minibatches=nminibatches, ppo__micro_batch_size=micro
    )
    assert count_steps(trainer) == 3 * epochs * nminibatches
    assert trainer.state.global_step == 3 * epochs * nminibatches


def test_micro_batches_of_any_size_train_the_same_model(tmp_path):
    trained = {}
    for micro in (1, 3, 4):
        trainer = make_trainer(tmp_path / str(micro), ppo__micro_batch_size=micro, ppo__learning_rate=1e-4)
        trainer.train()
        trained[micro] = weights(trainer)
    for micro in (1, 3):
        for name, expected in trained[4].items():
            assert torch.allclose(trained[micro][name], expected, atol=2e-5), (micro, name)


def test_minibatches_use_every_row_once_and_are_reshuffled_per_epoch(tmp_path):
    trainer = make_trainer(tmp_path, ppo__batch_size=32, ppo__num_minibatches=4)
    rollout = trainer.collector.collect(trainer.model, 0)
    first, second = (list(minibatches(rollout, trainer.config, epoch)) for epoch in (0, 1))
    assert [len(rows) for rows in first] == [8] * 4
    assert sorted(row for rows in first for row in rows) == list(range(32))
    assert first != second


def test_every_scored_completion_is_terminal_and_earns_its_score_once(tmp_path):
    trainer = make_trainer(tmp_path, ppo__batch_size=32, generation__max_completion_length=24)
    torch.nn.init.normal_(trainer.model.critic.mlp[-1].weight)
    rollout = trainer.collector.collect(trainer.model, 0)
    eos, ppo = trainer.collector.tokenizer.eos_token_id, trainer.config.ppo
    assert {c.finish for c in rollout.completions} == {Finish.STOP, Finish.LENGTH}
    values, returns = (x.split(rollout.lengths) for x in (rollout.states.values_N, rollout.returns_N))
    for row, completion in enumerate(rollout.completions):
        length, score = len(completion.token_ids), rollout.scores.total[row]
        assert (completion.token_ids[-1] == eos) == (completion.finish is Finish.STOP)
        # by hand: backwards from the last real token, whose reward is the whole score, and after which nothing comes
        advantage, following = 0.0, 0.0
        for t in reversed(range(length)):
            value = float(values[row][t])
            reward = score if t == length - 1 else 0.0
            advantage = reward + ppo.gamma * following - value + ppo.gamma * ppo.lam * advantage
            assert float(returns[row][t]) == pytest.approx(advantage + value, abs=1e-4)
            following = value


def test_old_logprobs_are_those_of_the_training_forward(tmp_path):
    trainer = make_trainer(tmp_path)
    rollout = trainer.collector.collect(trainer.model, 0)
    rows = list(range(8))
    for piece in micro_batches(rollout, rows, trainer.config, trainer.collector.tokenizer.pad_token_id):
        output = trainer.model(
            piece["input_ids_BL"],
            piece["state_index_N"],
            piece["targets_N"],
            **{name: piece[name] for name in ("teacher_hidden_NE", "teacher_scalars_NK")},
        )
        assert torch.allclose(output.logprobs_N, piece["old_logprobs_N"], atol=1e-5)
        assert torch.allclose(output.values_N, piece["old_values_N"], atol=1e-5)


def test_critic_warmup_moves_the_critic_and_leaves_the_policy(tmp_path):
    trainer = make_trainer(tmp_path, ppo__critic_warmup_steps=3, ppo__num_steps=4)
    before, moved = weights(trainer), []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            changed = {name for name, value in weights(trainer).items() if not torch.equal(value, before[name])}
            moved.append({name.startswith("critic.") for name in changed})

    trainer.add_callback(Watch())
    trainer.train()
    updates = len(moved) // 4
    assert moved[: 3 * updates] == [{True}] * (3 * updates)
    assert moved[-1] == {True, False}


def test_the_anchor_alone_pulls_the_student_to_the_teacher(tmp_path):
    trainer = make_trainer(
        tmp_path, ppo__num_steps=12, ppo__policy_coef=0, ppo__learning_rate=5e-3, anchor__schedule="fixed"
    )
    trainer.train()
    kl = [record["kl"] for record in trainer.state.log_history if "kl" in record]
    assert kl[-1] < 0.7 * kl[0]


def test_warmup_schedule_and_both_learning_rates_act(tmp_path):
    trainer = make_trainer(
        tmp_path, ppo__num_steps=8, ppo__warmup_steps=4, ppo__learning_rate=1e-3, ppo__value_learning_rate=4e-3
    )
    rates = []
    trainer.create_optimizer()
    trainer.optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[-1]["lr"]))
    )
    trainer.train()
    assert rates[0][0] == pytest.approx(0.0)
    assert rates[4][0] == pytest.approx(0.5e-3)
    assert rates[8][0] == pytest.approx(1e-3)
    assert all(value == pytest.approx(4 * policy) for policy, value in rates)
    assert rates[-1][0] < rates[8][0]
    assert rates[-1][0] >= 0.3e-3


def test_nan_in_the_policy_stops_with_the_step_named(tmp_path):
    trainer = make_trainer(tmp_path)
    with torch.no_grad():
        trainer.model.policy.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingStopped, match=r"step 0: .*last checkpoint is kept"):
        trainer.train()


def test_a_kl_explosion_stops_with_the_limit_named(tmp_path):
    trainer = make_trainer(tmp_path, ppo__stop_at_kl=1e-6)
    with pytest.raises(TrainingStopped, match=r"ppo.stop_at_kl"):
        trainer.train()


def test_the_ledger_counts_what_was_done_also_after_a_stop_and_a_resume(tmp_path):
    options = {"ppo__num_steps": 6, "checkpoint__every_steps": 2}
    whole = make_trainer(tmp_path / "whole", **options)
    pipeline.train(whole.config, whole)
    stopped = make_trainer(tmp_path / "stopped", **options)
    stopped.add_callback(StopAfter(3 * 2))
    pipeline.train(stopped.config, stopped)
    assert stopped.spent()["student_sequences"] == 3 * 8
    again = make_trainer(tmp_path / "stopped", **options, resume_from_checkpoint="latest")
    pipeline.train(again.config, again)
    assert again.spent() == whole.spent()
    assert whole.spent()["student_sequences"] == 6 * 8
    assert whole.spent()["teacher_tokens_scored"] == whole.collector.teacher.tokens_scored
    assert again.spent()["teacher_tokens_scored"] > again.collector.teacher.tokens_scored


def test_the_prompts_of_a_pass_are_shuffled_once(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, ppo__batch_size=8, ppo__group_size=2)
    shuffled, shuffle = [], random.Random.shuffle
    monkeypatch.setattr(random.Random, "shuffle", lambda self, rows: (shuffled.append(len(rows)), shuffle(self, rows)))
    steps = [trainer.collector._rows(step) for step in range(15)]  # 4 prompts a step of 40
    assert shuffled == [40, 40]
    assert all(rows[::2] == rows[1::2] for rows in steps)
    first_pass = [row for rows in steps[:10] for row in rows[::2]]
    assert sorted(first_pass) == list(range(40))
    assert first_pass != list(range(40))
    assert make_trainer(tmp_path / "again", ppo__batch_size=8, ppo__group_size=2).collector._rows(7) == steps[7]


def test_unscored_completions_do_not_train_the_policy(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, anchor__placement="none", ppo__value_coef=0.0)
    start = trainer.collector.blend.start

    class Unscored:
        def __init__(self, pending):
            self.pending = pending

        def finish(self, columns):
            scores = self.pending.finish(columns)
            scores.total[:] = [None] * len(scores.total)
            return scores

    monkeypatch.setattr(trainer.collector.blend, "start", lambda **batch: Unscored(start(**batch)))
    before = weights(trainer)
    trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer).items())


@pytest.mark.parametrize("critic", ["shared", "separate", "teacher_informed"])
def test_every_critic_learns_and_the_numbers_are_logged(tmp_path, critic):
    trainer = make_trainer(tmp_path, ppo__critic=critic)
    trainer.train()
    record = next(record for record in reversed(trainer.state.log_history) if "kl" in record)
    for name in (
        "reward", "rewards/task_check/mean", "rewards/teacher_likelihood/mean", "kl", "entropy", "explained_variance",
        "policy/approx_kl", "policy/clip_fraction", "loss/value", "grad_norm", "grad_norm_critic",
        "completions/mean_length", "completions/cut_by_length", "anchor/coefficient/math",
    ):  # fmt: skip
        assert math.isfinite(record[name]) or name == "explained_variance", name


def test_reward_metrics_are_those_of_all_processes(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path)
    rollout = trainer.collector.collect(trainer.model, 0)
    rollout.scores.metrics = {"rewards/f/errors": 0.25, "rewards/f/mean": 0.5, "rewards/f/seconds": 9.0, "own": 1.0}
    assert reward_metrics(rollout) == {"rewards/f/errors": 0.25, "rewards/f/mean": 0.5, "own": 1.0}
    other = (4, {"rewards/f/errors": 1.0, "rewards/f/mean": 0.5, "only there": 2.0})
    monkeypatch.setattr(distributed, "gather_list", lambda items: [*items, other])
    expected = {"rewards/f/errors": (8 * 0.25 + 4) / 12, "rewards/f/mean": 0.5, "own": 1.0, "only there": 2.0}
    assert reward_metrics(rollout) == pytest.approx(expected)


def test_cut_completions_leave_loss_and_statistics_where_they_are_masked(tmp_path):
    trainer = make_trainer(
        tmp_path,
        ppo__mask_truncated=True,
        ppo__advantage="group_mean",
        ppo__group_size=4,
        ppo__normalize_advantages="none",
        ppo__batch_size=32,
        generation__max_completion_length=24,
    )
    rollout = trainer.collector.collect(trainer.model, 0)
    stopped = [c.finish is Finish.STOP for c in rollout.completions]
    assert rollout.trained_B.tolist() == stopped
    assert 0 < sum(stopped) < 32
    advantages = [float(row.sum()) for row in rollout.advantages_N.split(rollout.lengths)]
    assert all(advantage == 0 for advantage, kept in zip(advantages, stopped, strict=True) if not kept)
    for first in range(0, 32, 4):  # a group's mean is that of its finished rows
        rows = [row for row in range(first, first + 4) if stopped[row]]
        mean = sum(rollout.scores.total[row] for row in rows) / max(1, len(rows))
        for row in rows:
            expected = (rollout.scores.total[row] - mean) * rollout.lengths[row]
            assert advantages[row] == pytest.approx(expected, abs=1e-5)
    assert rollout_metrics(rollout, trainer.collector.coefficient)["completions/trained_on"] == sum(stopped) / 32


def test_group_means_need_no_critic(tmp_path):
    trainer = make_trainer(tmp_path, ppo__advantage="group_mean", ppo__group_size=4)
    trainer.train()
    assert trainer.model.critic is None
    prompts = [problem.prompt for problem in trainer.collector.last_rollout.problems]
    assert prompts[0] == prompts[3] != prompts[4]


@pytest.mark.parametrize(
    ("placement", "estimator"), [("reward", "k1"), ("loss", "exact"), ("loss", "k2"), ("loss", "k3"), ("none", "exact")]
)
def test_every_anchor_trains(tmp_path, placement, estimator):
    trainer = make_trainer(
        tmp_path, ppo__num_steps=1, anchor__placement=placement, anchor__estimator=estimator, anchor__schedule="fixed"
    )
    trainer.train()
    assert trainer.state.global_step == 2


def test_a_resumed_run_equals_one_that_was_never_stopped(tmp_path):
    options = {"ppo__num_steps": 4, "checkpoint__every_steps": 2, "evaluation__every_steps": 2}
    whole = make_trainer(tmp_path / "whole", **options)
    pipeline.train(whole.config, whole)
    stopped = make_trainer(tmp_path / "stopped", **options)
    stopped.add_callback(StopAfter(3 * 2))
    pipeline.train(stopped.config, stopped)
    again = make_trainer(tmp_path / "stopped", **options, resume_from_checkpoint="latest")
    pipeline.train(again.config, again)
    assert again.state.global_step == 8
    for name, expected in weights(whole).items():
        assert torch.equal(weights(again)[name], expected), name
    metrics = [(tmp_path / run / "metrics.jsonl").read_text() for run in ("whole", "stopped")]
    assert metrics[0] == metrics[1]


class StopAfter(TrainerCallback):
    def __init__(self, num_updates: int) -> None:
        self.num_updates = num_updates

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.num_updates


def test_a_half_written_checkpoint_is_never_picked_up(tmp_path):
    trainer = make_trainer(tmp_path, ppo__num_steps=4, checkpoint__every_steps=2)
    pipeline.train(trainer.config, trainer)
    newest = checkpoint.find(tmp_path, "latest")
    assert newest.name == "checkpoint-8"
    (newest / "model.safetensors").write_bytes((newest / "model.safetensors").read_bytes()[:-1])
    assert checkpoint.find(tmp_path, "latest").name == "checkpoint-4"
    (tmp_path / "checkpoint-4" / checkpoint.MARKER).unlink()
    assert checkpoint.find(tmp_path, "latest") is None
    with pytest.raises(ConfigError, match="not a complete checkpoint"):
        checkpoint.find(tmp_path, str(newest))


def test_gradient_checkpointing_is_on_when_asked_for_and_changes_nothing(tmp_path):
    plain = make_trainer(tmp_path / "plain")
    plain.train()
    saving = make_trainer(tmp_path / "saving", student__gradient_checkpointing=True)
    saving.train()
    assert saving.model.policy.is_gradient_checkpointing
    for name, expected in weights(plain).items():
        assert torch.allclose(weights(saving)[name], expected, atol=1e-6), name


def test_bf16_changes_the_numbers_a_little(tmp_path):
    plain, half = make_trainer(tmp_path / "plain"), make_trainer(tmp_path / "half", ppo__bf16=True)
    plain.train()
    half.train()
    losses = [next(r["kl"] for r in t.state.log_history if "kl" in r) for t in (plain, half)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_the_exported_student_loads_and_results_hold_plain_numbers(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = make_config(tmp_path)
    context = make_context(config)
    trainer = pipeline.make_trainer(config, context)
    pipeline.train(config, trainer)
    folder = pipeline.export(config, trainer, context.tokenizer)
    student = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(student.lm_head.weight, trainer.model.policy.lm_head.weight)
    assert AutoTokenizer.from_pretrained(folder).eos_token_id == context.tokenizer.eos_token_id
    json.dumps(config.to_dict())
