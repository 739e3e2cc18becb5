"""A run resumed under other settings: what may change applies, what may not is refused by name."""

import json
import shutil

import pytest

from rl_distill import pipeline
from rl_distill.config import ConfigError
from rl_distill.ppo import checkpoint
from rl_distill.ppo.lifecycle.resume import check_resume
from tests.tiny_run import make_config, make_context, make_trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of two steps with a checkpoint after each."""
    folder = tmp_path_factory.mktemp("run")
    trainer = make_trainer(folder, ppo__num_steps=2, checkpoint__every_steps=1)
    assert pipeline.train(trainer.config, trainer)
    return folder


def resumed(folder, **changes):
    return make_config(folder, ppo__num_steps=2, checkpoint__every_steps=1, resume_from_checkpoint="latest", **changes)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ppo__num_minibatches", 4, r"ppo.num_minibatches \(2 -> 4\)"),
        ("ppo__num_epochs", 2, r"ppo.num_epochs \(1 -> 2\)"),
        ("ppo__batch_size", 16, r"ppo.batch_size \(8 -> 16\)"),
        ("seed", 1, r"seed \(0 -> 1\)"),
        ("rewards", [{"fn": "task_check"}], "rewards "),
        ("ppo__critic", "shared", r"ppo.critic \('teacher_informed' -> 'shared'\)"),
        ("ppo__advantage", "group_mean", "ppo.advantage"),
        ("student__lora", {"r": 4}, "student.lora"),
        ("demo__student", {"hidden_size": 64}, "demo.student.hidden_size"),
        ("anchor__schedule", "adaptive", r"anchor.schedule \('evidence' -> 'adaptive'\)"),
        ("generation__max_completion_length", 20, "generation.max_completion_length"),
    ],
)
def test_what_may_not_change_is_refused_by_name(run, name, value, words):
    changes = {name: value} | ({"ppo__group_size": 2} if value == "group_mean" else {})
    with pytest.raises(
        ConfigError, match=rf"was made with other settings, .*{words}.*start anew in another output_dir"
    ):
        check_resume(resumed(run, **changes))


@pytest.mark.parametrize("kind", ["weak_tasks", "learning_progress", "prompt_pools"])
def test_a_checkpoint_from_before_there_was_sampling_is_refused_in_one_line(run, tmp_path, kind):
    folder = tmp_path / "old"
    shutil.copytree(run, folder)
    for state in folder.glob(f"checkpoint-*/{checkpoint.STATE}"):
        states = json.loads(state.read_text())
        del states["config"]["sampling"]  # as written by a version without the setting
        state.write_text(json.dumps(states))
        checkpoint.complete(state.parent)
    with pytest.raises(ConfigError, match=r"was made without sampling.kind and data.mixture .* start anew"):
        check_resume(resumed(folder, sampling__kind=kind))
    check_resume(resumed(folder))


def test_what_may_change_is_told_and_applies(run, tmp_path, capsys):
    config = resumed(run, ppo__learning_rate=1e-4, evaluation__every_steps=7)
    check_resume(config)
    told = capsys.readouterr().out
    assert "resuming with changed settings:" in told
    assert "ppo.learning_rate (0.0007 -> 0.0001)" in told
    assert "evaluation.every_steps (1000 -> 7)" in told


def copy_of(run, tmp_path, step):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copytree(run / f"checkpoint-{step * 2}", folder / f"checkpoint-{step * 2}")
    return folder


def train(config):
    trainer = pipeline.make_trainer(config, make_context(config))
    assert pipeline.train(config, trainer)
    return trainer


def rates(trainer):
    return [record["learning_rate"] for record in trainer.state.log_history if "learning_rate" in record]


def test_other_learning_rates_and_save_intervals_apply_from_the_next_step(run, tmp_path):
    folder = copy_of(run, tmp_path, 1)
    base = {"ppo__num_steps": 4, "resume_from_checkpoint": "latest"}
    whole = train(make_config(tmp_path / "whole", ppo__num_steps=4, checkpoint__every_steps=100))
    half = train(make_config(folder, **base, ppo__learning_rate=3.5e-4, checkpoint__every_steps=2))
    assert rates(half)[1:] == pytest.approx([rate / 2 for rate in rates(whole)[1:]], rel=1e-6)
    assert [path.name for path in checkpoint.folders(folder)] == ["checkpoint-4", "checkpoint-8"]


def test_a_checkpoint_is_found_by_its_name_alone_and_a_wrong_one_is_told(run):
    assert checkpoint.find(run, "checkpoint-2") == run / "checkpoint-2"
    with pytest.raises(ConfigError, match=r"'chekpoint-2' does not exist; '.*' has checkpoint-2, checkpoint-4"):
        checkpoint.find(run, "chekpoint-2")
    with pytest.raises(ConfigError, match=r"'nowhere' does not exist; '/no' has no checkpoint"):
        checkpoint.find(run.__class__("/no"), "nowhere")


def test_a_section_that_is_new_is_shown_with_its_settings(run):
    with pytest.raises(ConfigError, match=r"student.lora \(None -> \{.*'r': 4"):
        check_resume(resumed(run, student__lora={"r": 4}))
