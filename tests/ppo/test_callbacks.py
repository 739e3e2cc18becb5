"""What watches a run: early stopping, the best checkpoint, the critic's warning, completions on disk."""

import warnings

import pyarrow.parquet as pq
import pytest
import torch

from rl_distill import pipeline
from rl_distill.ppo import checkpoint
from rl_distill.ppo.callbacks import CriticWatch, evaluations_since_best
from tests.tiny_run import make_trainer, weights

EVERY_STEP = {"evaluation__every_steps": 1, "checkpoint__every_steps": 100}


def scripted(trainer, accuracies):
    """The trainer with validation accuracies of a script, and its weights at each evaluation."""
    seen, numbers = [], iter(accuracies)

    def validate(model):
        seen.append(weights(trainer))
        return {"overall": next(numbers)}

    trainer.validate = validate
    return seen


def test_evaluations_since_best_counts_from_the_first_best():
    assert evaluations_since_best([]) == 0
    assert evaluations_since_best([0.5]) == 0
    assert evaluations_since_best([0.5, 0.5, 0.4]) == 2
    assert evaluations_since_best([0.1, float("nan"), 0.2]) == 0
    assert evaluations_since_best([float("nan"), float("nan")]) == 2


def test_patience_stops_the_run_and_a_resumed_one_stays_stopped(tmp_path):
    trainer = make_trainer(tmp_path, ppo__num_steps=9, evaluation__patience=2, **EVERY_STEP)
    scripted(trainer, [0.1, 0.3, 0.2, 0.3])
    pipeline.train(trainer.config, trainer)
    assert trainer.state.global_step == 4 * 2
    again = make_trainer(
        tmp_path, ppo__num_steps=9, evaluation__patience=2, **EVERY_STEP, resume_from_checkpoint="latest"
    )
    pipeline.train(again.config, again)
    assert again.state.global_step == 4 * 2
    assert all(torch.equal(value, weights(trainer)[name]) for name, value in weights(again).items())


def test_the_best_by_validation_is_kept_and_loaded(tmp_path):
    trainer = make_trainer(
        tmp_path, ppo__num_steps=6, evaluation__load_best=True, checkpoint__keep_last=2, **EVERY_STEP
    )
    seen = scripted(trainer, [0.1, 0.4, 0.2, 0.2, 0.3, 0.1])
    trainer.args.save_steps = 2  # a checkpoint after every step, so that old ones are removed
    pipeline.train(trainer.config, trainer)
    best, last = seen[1], seen[5]
    assert all(torch.equal(value, best[name]) for name, value in weights(trainer).items())
    assert any(not torch.equal(value, last[name]) for name, value in weights(trainer).items())


@pytest.mark.parametrize(
    ("keep_last", "load_best", "kept"),
    [(1, False, [12]), (3, False, [8, 10, 12]), (1, True, [4, 12]), (2, True, [4, 10, 12])],
)
def test_as_many_checkpoints_are_kept_as_asked_for(tmp_path, keep_last, load_best, kept):
    changes = {"checkpoint__every_steps": 1, "checkpoint__keep_last": keep_last, "evaluation__every_steps": 1}
    trainer = make_trainer(tmp_path, ppo__num_steps=6, evaluation__load_best=load_best, **changes)
    scripted(trainer, [0.1, 0.4, 0.2, 0.2, 0.3, 0.1])
    pipeline.train(trainer.config, trainer)
    assert [path.name for path in checkpoint.folders(tmp_path)] == [f"checkpoint-{step}" for step in kept]


def test_the_last_whole_checkpoint_stays_until_the_next_one_is_whole(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, ppo__num_steps=2, checkpoint__every_steps=1, checkpoint__keep_last=1)
    complete, whole = checkpoint.complete, []

    def watched(folder):
        whole.append([path.name for path in checkpoint.folders(tmp_path) if checkpoint.is_complete(path)])
        complete(folder)

    monkeypatch.setattr(checkpoint, "complete", watched)
    pipeline.train(trainer.config, trainer)
    assert whole == [[], ["checkpoint-2"]]  # before the first and before the second marker


def test_a_run_that_starts_anew_sets_older_checkpoints_aside(tmp_path):
    first = make_trainer(tmp_path, ppo__num_steps=2)
    pipeline.train(first.config, first)
    second = make_trainer(tmp_path, ppo__num_steps=1)
    pipeline.train(second.config, second)
    assert [path.name for path in checkpoint.folders(tmp_path)] == ["checkpoint-2"]
    assert [path.name for path in checkpoint.folders(tmp_path / "previous")] == ["checkpoint-4"]


class State:
    is_world_process_zero = True

    def __init__(self):
        self.log_history = []


def feed(watch, state, values):
    messages = []
    for value in values:
        record = {"explained_variance": value}
        state.log_history.append(record | {"step": len(state.log_history) + 1})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            watch.on_log(None, state, None, logs=record)
        messages += [(len(state.log_history), str(item.message)) for item in caught]
    return messages


def test_a_negative_explained_variance_warns_once_until_it_recovers():
    watch, state = CriticWatch(first_step=5, updates_per_step=1), State()
    messages = feed(watch, state, [-9.0] * 5 + [-0.5] * 30)
    assert [step for step, _ in messages] == [25]  # five of warm-up, twenty of evidence, and no second warning
    assert "-0.50 on average over 20 steps" in messages[0][1]
    assert feed(watch, state, [0.9] * 20) == []
    assert len(feed(watch, state, [-1.0] * 30)) == 1


def test_a_critic_that_explains_nothing_yet_is_not_warned_about():
    assert feed(CriticWatch(0, 1), State(), [float("nan"), 0.0] * 30) == []


def test_completions_are_written_with_every_reward_part(tmp_path):
    trainer = make_trainer(tmp_path, ppo__num_steps=4, log_completions_every=2)
    pipeline.train(trainer.config, trainer)
    folder = tmp_path / "completions"
    assert sorted(path.name for path in folder.glob("*.parquet")) == [
        "completions_00002.parquet",
        "completions_00004.parquet",
    ]
    rows = pq.read_table(folder / "completions_00004.parquet").to_pylist()
    assert len(rows) == 8
    assert set(rows[0]) == {
        "step", "task", "prompt", "completion", "finish", "task_check", "teacher_likelihood", "total", "advantage",
    }  # fmt: skip
    for row, completion, total in zip(
        rows, trainer.collector.last_rollout.completions, trainer.collector.last_rollout.scores.total, strict=True
    ):
        assert (row["step"], row["completion"]) == (4, completion.text)
        assert row["total"] == pytest.approx(total)
    text = (folder / "completions_00004.txt").read_text()
    assert all(row["prompt"] in text for row in rows)
