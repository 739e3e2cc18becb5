"""Alarms on series written by hand: when each is active, what it says, and how often it is told."""

import math
from types import SimpleNamespace

import pytest

from rl_distill import pipeline
from rl_distill.config import AlarmsConfig
from rl_distill.files import read_jsonl
from rl_distill.ppo.lifecycle.alarms import ADVICE, Alarms, active_alarms, alarm_metrics
from rl_distill.ppo.rollout_metrics import groups_with_signal, repeated
from tests.tiny_run import make_trainer

HEALTHY = {
    "kl": 0.3,
    "entropy": 1.0,
    "reward": 0.2,
    "completions/mean_length": 40.0,
    "completions/cut_by_length": 0.1,
    "completions/repeated": 0.05,
    "groups/with_signal": 0.6,
}


def records(number, **changes):
    named = {name.replace("__", "/"): value for name, value in changes.items()}
    return [HEALTHY | named | {"ppo_step": step + 1} for step in range(number)]


def active(earlier, settings=None, **now):
    present = records(1, **now)[0]
    return active_alarms(earlier, present, settings or AlarmsConfig())


def test_a_healthy_run_has_no_alarm():
    assert active(records(30)) == {}
    assert active([]) == {}


@pytest.mark.parametrize(
    ("name", "now", "words"),
    [
        ("kl_jump", {"kl": 13.0}, "KL to the teacher is 13 nats per token, 0.3 in the steps before"),
        ("length_collapse", {"completions__mean_length": 1.0}, "answers have 1 tokens, 40 at the start"),
        (
            "length_explosion",
            {"completions__mean_length": 120.0, "completions__cut_by_length": 0.7},
            "answers have 120 tokens, 40 at the start, and 70 % are cut",
        ),
        (
            "entropy_collapse",
            {"entropy": 0.05},
            "entropy is 0.05 nats per token, 1 at the start, and the reward has not risen",
        ),
        ("repetition", {"completions__repeated": 0.6}, "60 % of the four-token sequences"),
    ],
)
def test_each_alarm_speaks_of_its_own_number_alone(name, now, words):
    found = active(records(12), **now)
    assert list(found) == [name]
    assert words in found[name]


@pytest.mark.parametrize(
    "now",
    [
        {"kl": 1.4},  # below five times 0.3
        {"completions__mean_length": 11.0},
        {"completions__mean_length": 120.0, "completions__cut_by_length": 0.4},
        {"completions__mean_length": 79.0, "completions__cut_by_length": 0.9},
        {"entropy": 0.11},
        {"completions__repeated": 0.49},
        {"kl": math.nan, "entropy": math.nan, "reward": math.nan, "completions__mean_length": math.nan},
    ],
)
def test_below_the_thresholds_and_without_numbers_nothing_is_said(now):
    assert active(records(12), **now) == {}


def test_a_kl_that_is_small_does_not_jump():
    assert active(records(12, kl=0.01), kl=0.4) == {}


def test_the_broken_run_is_seen_at_its_fourth_step():
    """The KL of a pretrained student trained at the demo's learning rate: dead at step 4."""
    assert "kl_jump" in active(records(3, kl=0.5), kl=13.0, completions__mean_length=1.0)


def test_entropy_may_fall_where_the_reward_rises():
    risen = records(5) + records(10, entropy=0.2, reward=0.9)
    assert active(risen, entropy=0.05, reward=0.9) == {}
    assert list(active(records(15, entropy=0.5), entropy=0.04)) == ["entropy_collapse"]


def test_no_signal_takes_all_its_steps():
    assert active(records(8, groups__with_signal=0.0), groups__with_signal=0.0) == {}
    nine = records(9, groups__with_signal=0.0, reward=0.0)
    assert list(active(nine, groups__with_signal=0.0, reward=0.0)) == ["no_signal"]
    assert "equal for 10 steps (mean reward 0)" in active(nine, groups__with_signal=0.0, reward=0.0)["no_signal"]
    assert active(nine, groups__with_signal=0.01) == {}
    nothing_scored = records(9, groups__with_signal=math.nan)
    assert active(nothing_scored, groups__with_signal=math.nan) == {}


def test_thresholds_are_settings():
    settings = AlarmsConfig(no_signal_steps=2, kl_factor=2.0)
    assert list(active(records(1, groups__with_signal=0.0), settings, groups__with_signal=0.0)) == ["no_signal"]
    assert list(active(records(3), settings, kl=0.7)) == ["kl_jump"]
    assert alarm_metrics(records(9), records(1)[0], AlarmsConfig(enabled=False)) == {}


def test_evaluations_between_the_steps_are_passed_over():
    history = [record for step in records(9, groups__with_signal=0.0) for record in (step, {"eval_accuracy": 0.1})]
    found = alarm_metrics(history, records(1, groups__with_signal=0.0)[0], AlarmsConfig())
    assert found == {f"alarm/{name}": float(name == "no_signal") for name in ADVICE}


def run_of(series):
    """(steps at which something was told, what) of a run with these numbers, as Trainer keeps and logs them."""
    watch, state = Alarms(AlarmsConfig()), SimpleNamespace(log_history=[], is_world_process_zero=True)
    for number, numbers in enumerate(series):
        logs = HEALTHY | numbers | {"ppo_step": number + 1}
        logs |= alarm_metrics(state.log_history, logs, watch.settings)
        state.log_history.append(dict(logs))
        watch.on_log(None, state, None, logs=logs)


def test_an_alarm_is_told_once_and_again_after_it_was_silent(capsys):
    loops = {"completions/repeated": 0.9}
    run_of([{}] * 3 + [loops] * 20 + [{}] * 12 + [loops] * 3)
    said = [line for line in capsys.readouterr().out.splitlines() if line]
    assert [line.split(":")[0] for line in said] == ["alarm repetition at step 4", "alarm repetition at step 36"]
    assert said[0].endswith(ADVICE["repetition"])


def test_an_alarm_that_flickers_is_not_repeated(capsys):
    run_of([{}] * 3 + [{"completions/repeated": 0.9}, {}] * 20)
    assert capsys.readouterr().out.count("alarm repetition") == 1


def test_the_share_of_repeated_sequences():
    assert repeated([1, 2, 3]) == 0  # shorter than one sequence
    assert repeated([1, 2, 3, 4, 5]) == 0
    assert repeated([7] * 8) == pytest.approx(4 / 5)  # five sequences, one distinct
    assert repeated([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)


def rollout(keys, scores, trained=None):
    import torch

    return SimpleNamespace(
        problems=[SimpleNamespace(key=key) for key in keys],
        scores=SimpleNamespace(total=scores),
        trained_B=torch.tensor(trained or [True] * len(keys)),
    )


def test_signal_is_counted_within_groups():
    assert groups_with_signal(rollout("aabb", [1.0, 1.0, 0.0, 0.0]), 2) == 0
    assert groups_with_signal(rollout("aabb", [1.0, 0.0, 0.0, 0.0]), 2) == 0.5
    assert groups_with_signal(rollout("abcd", [1.0, 1.0, 0.0, 0.0]), 1) == 1  # one group
    assert groups_with_signal(rollout("abcd", [0.3] * 4), 1) == 0
    assert groups_with_signal(rollout("aabb", [1.0, 0.0, 0.0, 0.0], [True, False, True, True]), 2) == 0
    assert math.isnan(groups_with_signal(rollout("ab", [None, None]), 1))


def test_a_run_without_signal_tells_it(tmp_path, capsys):
    """A reward that random models never earn: every gradient of the policy is the anchor's."""
    rewards = [{"fn": "task_check", "weight": 1.0}]
    settings = {"alarms__no_signal_steps": 2, "ppo__num_steps": 4, "ppo__advantage": "group_mean", "ppo__group_size": 2}
    trainer = make_trainer(tmp_path, rewards=rewards, **settings)
    pipeline.train(trainer.config, trainer)
    steps = [record for record in read_jsonl(tmp_path / "metrics.jsonl") if "loss" in record]
    assert [record["groups/with_signal"] for record in steps] == [0.0] * 4
    assert [record["alarm/no_signal"] for record in steps] == [0.0, 1.0, 1.0, 1.0]
    assert capsys.readouterr().out.count("alarm no_signal at step 2: all rewards within every group were equal") == 1
