"""What is kept when a run is interrupted, shown of its first batch, and refused where nothing is ever scored."""

import os
import signal
import subprocess
import time

import pytest

from rl_distill import pipeline
from rl_distill.errors import in_one_line
from rl_distill.ppo import checkpoint
from rl_distill.ppo.lifecycle.first_batch import FILE
from rl_distill.ppo.lifecycle.interruption import SaveByTheClock
from rl_distill.ppo.rollout import TrainingStopped
from tests.tiny_run import make_config, make_context, make_trainer


def on_rollout(trainer, step, act):
    """Lets `act` happen while the rollout of `step` is collected."""
    collect = trainer.collector.collect

    def collect_and_act(model, number, *rest):
        if number == step:
            act()
        return collect(model, number, *rest)

    trainer.collector.collect = collect_and_act


def press():
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_ctrl_c_finishes_the_step_and_saves(tmp_path, capfd):
    trainer = make_trainer(tmp_path, ppo__num_steps=5)
    on_rollout(trainer, 1, press)
    assert not pipeline.train(trainer.config, trainer)
    (saved,) = checkpoint.folders(tmp_path)
    assert (saved.name, checkpoint.is_complete(saved)) == ("checkpoint-4", True)
    told = capfd.readouterr().err
    assert "Ctrl-C: the run finishes its step, saves and stops; press it again to stop at once" in told
    assert "Ctrl-C: saved after step 2; go on with --resume_from_checkpoint latest" in told
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_ctrl_c_stops_at_once_but_one_that_a_launcher_repeats_does_not(tmp_path):
    trainer = make_trainer(tmp_path / "a", ppo__num_steps=5)
    on_rollout(trainer, 1, lambda: (press(), press()))
    assert not pipeline.train(trainer.config, trainer)
    trainer = make_trainer(tmp_path / "b", ppo__num_steps=5)
    on_rollout(trainer, 1, lambda: (press(), time.sleep(1.1), press()))
    with pytest.raises(KeyboardInterrupt):
        pipeline.train(trainer.config, trainer)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "also where training ends by an error"
    assert checkpoint.folders(tmp_path / "b") == []


def test_a_run_saves_after_its_last_step_and_by_the_clock(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, ppo__num_steps=3, checkpoint__every_steps=1000, checkpoint__keep_last=5)
    (clock,) = (c for c in trainer.callback_handler.callbacks if isinstance(c, SaveByTheClock))
    assert clock.minutes == 15.0
    late = iter([0.0, 901.0, 901.0, 901.0, 1000.0, 1000.0, 1000.0])
    monkeypatch.setattr("rl_distill.ppo.lifecycle.interruption.time.monotonic", lambda: next(late, 1000.0))
    pipeline.train(trainer.config, trainer)
    assert [path.name for path in checkpoint.folders(tmp_path)] == ["checkpoint-2", "checkpoint-6"]


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 3 MB; skips where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_leaves_the_older_checkpoint_and_one_line(small_disk):
    trainer = make_trainer(small_disk, ppo__num_steps=9, checkpoint__every_steps=1, checkpoint__keep_last=9)
    with pytest.raises(Exception) as full:
        pipeline.train(trainer.config, trainer)
    words, status = in_one_line(full.value)
    assert (status, words) == (2, words)
    assert "no space left on the disk" in words
    assert "the last complete checkpoint is kept" in words
    kept = checkpoint.find(small_disk, "latest")
    assert kept is not None
    assert checkpoint.is_complete(kept)


def test_the_first_batch_is_shown_once_and_kept(tmp_path, capfd):
    trainer = make_trainer(tmp_path, ppo__num_steps=2)
    pipeline.train(trainer.config, trainer)
    text = (tmp_path / FILE).read_text()
    assert capfd.readouterr().out.count(text) == 1
    rollout = trainer.collector.collect(trainer.actor_critic, 0)
    assert f"task {rollout.problems[0].task}, as the model sees it\n{rollout.problems[0].prompt}\n" in text
    assert text.startswith("first batch: ")
    assert "of 8 answers were cut at 12 tokens" in text
    assert text.count("--- teacher, score ") == text.count("--- student, score ") == 2


def test_special_tokens_of_the_prompt_are_visible(tmp_path):
    from dataclasses import replace

    config = make_config(tmp_path, ppo__num_steps=1)
    context = make_context(config)
    train = [replace(p, prompt=f"<|pad|>{p.prompt}") for p in context.splits.train]
    context.splits = replace(context.splits, train=train)
    trainer = pipeline.make_trainer(config, context)
    pipeline.train(config, trainer)
    assert (tmp_path / FILE).read_text().count("as the model sees it\n<|pad|>") == 2


def unscored_run(folder, when):
    """A run whose only reward leaves everything unscored while `when` is true of the number of calls so far."""
    module = folder / "reward.py"
    module.write_text(
        "calls = 0\n"
        "def mine(completions, **columns):\n"
        "    global calls\n"
        "    calls += 1\n"
        f"    return [None if {when} else 1.0 for _ in completions]\n"
    )
    return make_trainer(
        folder, ppo__num_steps=6, rewards=[{"fn": f"{module}:mine"}], anchor__schedule="fixed", ppo__critic="shared"
    )


def test_a_run_in_which_nothing_is_scored_stops(tmp_path):
    trainer = unscored_run(tmp_path, "True")
    with pytest.raises(TrainingStopped, match=r"none of the rewards mine has scored a completion for 3 steps: look at"):
        pipeline.train(trainer.config, trainer)


def test_two_unscored_steps_in_a_row_do_not_stop_a_run(tmp_path):
    trainer = unscored_run(tmp_path, "calls % 4 in (2, 3)")
    assert pipeline.train(trainer.config, trainer)
