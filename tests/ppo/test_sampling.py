"""PPO with a mixture and with sampling that follows success: recorded, resumed exactly, the same in two processes."""

import json
import shutil
from pathlib import Path

import pytest

from rl_distill import pipeline
from rl_distill.config import ConfigError, load_config
from rl_distill.config.command_line import parse
from rl_distill.data.adaptive import WeakTasks
from rl_distill.demo.problems import make_problems
from rl_distill.files import read_jsonl
from rl_distill.progress import Stages
from rl_distill.run_setup import prepare
from tests import killable, launched, own_models, tiny_run

KINDS = ("weak_tasks", "learning_progress", "prompt_pools")


def by_task(folder: Path) -> list[dict]:
    """A mixture of the two tasks of the folder's problems, three of code to one of math."""
    rows, entries = read_jsonl(folder / "train.jsonl"), []
    for task, share in (("math", 1.0), ("code", 3.0)):
        path = folder / f"{task}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows if row["task"] == task))
        entries.append({"train": str(path), "task": task, "share": share})
    return entries


def run(output_dir: Path, kind: str, **settings) -> Path:
    config = tiny_run.make_config(
        output_dir,
        sampling__kind=kind,
        sampling__window=1,
        ppo__num_steps=4,
        ppo__group_size=2,
        checkpoint__every_steps=2,
        teacher__autocast="off",
        **settings,
    )
    pipeline.train(config, pipeline.make_trainer(config, tiny_run.make_context(config)))
    return output_dir


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_resumed_in_mid_curriculum_ends_like_one_that_was_not(tmp_path, kind):
    whole = run(tmp_path / "whole", kind)
    shutil.copytree(whole, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoint-8")
    again = run(tmp_path / "again", kind, resume_from_checkpoint="latest")
    assert (again / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    name = "checkpoint-8/model.safetensors"
    assert (again / name).read_bytes() == (whole / name).read_bytes()
    states = [json.loads((folder / "checkpoint-8" / "run_state.json").read_text()) for folder in (again, whole)]
    assert states[0]["sampling"] == states[1]["sampling"]
    assert sum(states[0]["sampling"]["drawn"].values()) == (0 if kind == "prompt_pools" else 16)


def test_a_mixture_is_drawn_by_its_shares(tmp_path):
    entries = by_task(own_models.write(tmp_path))
    settings = {"data__train": None, "data__mixture": entries, "teacher__model": str(tmp_path / "small")}
    config = own_models.config(tmp_path, tmp_path / "run", ppo__num_steps=2, **settings)
    trainer = pipeline.make_trainer(config, prepare(config, Stages()))
    pipeline.train(config, trainer)
    records = [record for record in read_jsonl(tmp_path / "run" / "metrics.jsonl") if "loss" in record]
    assert [record["sampling/share/code"] for record in records] == [0.75, 0.75]
    assert [record["sampling/share/math"] for record in records] == [0.25, 0.25]
    assert {"success/math", "success/code"} <= set(records[0])


def test_free_text_feels_the_anchor_alone(tmp_path):
    """Its rows train neither policy nor critic, and change the student by the anchor."""
    entries = by_task(own_models.write(tmp_path))
    entries[1]["anchor_only"] = True
    settings = {"data__train": None, "data__mixture": entries, "teacher__model": str(tmp_path / "small")}
    config = own_models.config(tmp_path, tmp_path / "run", ppo__num_steps=1, **settings)
    trainer = pipeline.make_trainer(config, prepare(config, Stages()))
    pipeline.train(config, trainer)
    rollout = trainer.collector.latest()
    is_text = [problem.source == "code" for problem in rollout.problems]
    assert rollout.trained_B.tolist() == [not text for text in is_text]
    text_N = rollout.trained_N.logical_not()
    assert text_N.any()
    assert rollout.advantages_N[text_N].eq(0).all()
    assert rollout.anchor_N[text_N].eq(1.0).all()
    record = next(r for r in read_jsonl(tmp_path / "run" / "metrics.jsonl") if "loss" in r)
    assert record["completions/trained_on"] == 0.25


def test_success_is_counted_by_group():
    trainer_problems = make_problems("train", 40, 0)
    settings = load_config(None, {"sampling.kind": "weak_tasks"}).sampling
    sampler = WeakTasks(trainer_problems, 4, 0, settings)
    tasks = [trainer_problems[row].task for row in sampler.rows(0)]
    sampler.observe([float(task == "math") for task in tasks for _ in range(2)])
    assert {task: right for task, (right, _) in sampler.seen.items()} == {
        task: 2.0 * tasks.count(task) * (task == "math") for task in tasks
    }


def test_without_a_verifying_reward_it_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(
            [
                "--output_dir",
                str(tmp_path),
                "--sampling.kind",
                "weak_tasks",
                "--anchor.schedule",
                "fixed",
                "--rewards",
                "[{fn: teacher_likelihood, weight: 1.0}]",
            ]
        )
    assert caught.value.code == 2
    assert "sampling.kind: weak_tasks needs one of the rewards" in capsys.readouterr().err


def test_a_wrong_number_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"sampling.floor must be at least 0 and at most 1, not 1\.5"):
        tiny_run.make_config(tmp_path, sampling__floor=1.5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_draw_like_one(tmp_path, kind):
    folder = own_models.write(tmp_path)
    mixture = "[" + ", ".join(
        f"{{train: {e['train']}, task: {e['task']}, share: {e['share']}}}" for e in by_task(folder)
    )
    options = own_models.options(folder, sampling__kind=kind, sampling__window=1, data__mixture=mixture + "]")
    options["teacher__model"] = folder / "small"
    del options["data__train"]
    launched.finish("ddp", 2, tmp_path / "two", **options)
    killable.finish(tmp_path / "one", **launched.OPTIONS | options)
    found, wanted = (read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("two", "one"))
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        names = {name for name in theirs if name.startswith(("sampling/", "success/"))}
        assert {name: ours[name] for name in names} == {name: theirs[name] for name in names}
    states = [json.loads((tmp_path / n / "checkpoint-8" / "run_state.json").read_text()) for n in ("two", "one")]
    assert states[0]["sampling"] == states[1]["sampling"]
