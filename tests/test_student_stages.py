"""Stages before PPO: what they learn from, their cache, and continuing after an interruption."""

from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from rl_distill import student_stages
from rl_distill.config import ConfigError, load_config
from rl_distill.progress import Stages
from rl_distill.teachers.colocated import fingerprint
from tests.tiny_run import SETTINGS, make_context

DISTILL = {
    "distill.num_steps": 4, "distill.batch_size": 4, "distill.evaluate_every_steps": 2, "distill.num_heldout": 4,
    "distill.num_prompts": 20, "distill.warmup_steps": 0, "anchor.schedule": "fixed",
}  # fmt: skip


def make_config(folder: Path, **settings):
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    return load_config(None, SETTINGS | DISTILL | {"output_dir": str(folder)} | dotted)


def distilled(config, monkeypatch=None, stop_at=None):
    context = make_context(config)
    if stop_at is not None:
        real = student_stages.make_trainer

        def make(*args):
            trainer = real(*args)
            trainer.add_callback(Interrupt(stop_at))
            return trainer

        monkeypatch.setattr(student_stages, "make_trainer", make)
    student_stages.prepare_student(config, context, Stages(quiet=True))
    return {name: p.detach().clone() for name, p in context.student.named_parameters()}


class Interrupt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def test_an_interrupted_stage_continues_to_the_same_student_and_is_then_cached(tmp_path, monkeypatch):
    whole = distilled(make_config(tmp_path / "whole"))
    config = make_config(tmp_path / "cut")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        distilled(config, patch, stop_at=3)
    assert [path.name for path in sorted((tmp_path / "cut").glob("distill-*/checkpoint-*"))] == ["checkpoint-2"]
    resumed = distilled(config)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    monkeypatch.setattr(student_stages, "make_trainer", lambda *_: pytest.fail("made again"))
    cached = distilled(config)
    assert all(torch.equal(whole[name], cached[name]) for name in whole)


def test_gold_sequences_end_with_eos_and_cut_teacher_texts_do_not(tmp_path):
    config = make_config(tmp_path, distill__data="gold")
    context = make_context(config)
    problems, eos = context.splits.train, context.tokenizer.eos_token_id
    gold = student_stages.sequences(config, config.distill, context, problems)
    assert all(example.completion_ids[-1] == eos for example in gold)
    assert context.tokenizer.decode(gold[0].completion_ids[:-1]) == problems[0].solution
    texts = make_config(tmp_path)  # a random teacher seldom ends within the 12 tokens it has
    written = student_stages.sequences(texts, texts.distill, context, problems)
    limit = texts.generation.max_completion_length
    assert len(written) == len(problems)
    assert all(example.completion_ids[-1] == eos or len(example.completion_ids) >= limit - 1 for example in written)
    assert any(example.completion_ids[-1] != eos for example in written)


def test_only_verified_texts_are_kept_and_having_none_says_what_to_change(tmp_path):
    config = make_config(tmp_path, distill__only_verified=True)
    with pytest.raises(ConfigError, match=r"distill: 0 of 20 sequences are left and 4 are held out: raise"):
        distilled(config)


def refused(tmp_path, settings):
    config = make_config(tmp_path, **settings)
    student_stages.check_stages(config)
    distilled(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"distill__inner": {"hidden_map": "last"}, "teacher__placement": "dedicated"},
            "set teacher.placement to colocated",
        ),
        ({"distill__inner": {"hidden_map": {6: 9}}}, r"layer map \{6: 9\}: the student has layers 0 to 1"),
        ({"student__lora": {}}, "leave student.lora out"),
        ({"distill__alpha": {"start": 3.0}}, "distill.alpha is a share"),
        ({"distill__temperature": {"start": 2.0, "end": 0.0}}, "distill.temperature must stay above 0"),
        ({"distill__alpha": {"start": 1.0}, "distill__on_policy": {"start": 0.5}}, "leaves nothing else to learn"),
        ({"distill__optimizer": "muon", "distill__weight_decay": 0.1}, "distill.weight_decay is AdamW's"),
        ({"distill__divergence": "kl"}, "distill.divergence: 'kl' is not one of forward_kl"),
    ],
)
def test_stages_that_cannot_be_are_refused_in_one_line(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        refused(tmp_path, settings)


def test_weights_in_another_order_are_other_weights(make_policy):
    policy = make_policy()
    before = fingerprint(policy)
    assert fingerprint(make_policy()) == before
    weight = policy.model.layers[0].mlp.up_proj.weight
    weight.data = weight.data.flip(0)
    assert fingerprint(policy) != before


def test_patience_ends_a_stage_and_takes_the_best_student(tmp_path, monkeypatch):
    accuracies = iter([0.1, 0.4, 0.3, 0.2, 0.9])
    kept = []

    def scripted(config, context, examples):
        def evaluate(policy):
            kept.append({name: p.detach().clone() for name, p in policy.named_parameters()})
            return {"accuracy": next(accuracies)}

        return evaluate

    monkeypatch.setattr(student_stages, "_heldout", scripted)
    config = make_config(tmp_path, distill__num_steps=10, distill__patience=2)
    student = distilled(config)
    assert len(kept) == 4  # two evaluations without a better one after the second
    assert all(torch.equal(student[name], kept[1][name]) for name in student)


def test_a_stage_reports_to_the_trackers_of_the_run(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    distilled(make_config(tmp_path, distill__num_steps=10, report_to=["tensorboard"]))
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    found = EventAccumulator(str(events)).Reload().Tags()["scalars"]
    assert {"train/loss/kd", "train/schedule/temperature", "eval/accuracy", "eval/forward_kl"} <= set(found)
