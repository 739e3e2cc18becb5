"""`student.arch`: the student is cut from the run's teacher, once, with its card; what cannot be is one line."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rl_distill import Distiller, run_setup
from rl_distill.config import ConfigError, load_config
from rl_distill.progress import Stages
from rl_distill.run_setup import student_arch
from tests import own_models
from tests.tiny_run import SETTINGS

UNCHECKED = {"rewards": [{"fn": "teacher_likelihood", "weight": 1.0}]}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("models"))


def make_config(models, folder, arch, **changes):
    settings = own_models.settings(models, folder, teacher__model=str(models / "deep"), student__arch=arch, **changes)
    return load_config(None, {k: v for k, v in settings.items() if k != "student.model"} | UNCHECKED)


def prepared(config):
    return run_setup.prepare(config, Stages(quiet=True), with_anchor=False)


def test_the_student_is_the_named_layers_of_the_teacher_and_has_its_card(models, tmp_path):
    context = prepared(make_config(models, tmp_path, "teacher:layers=0,3;ffn=magnitude:0.5"))
    teacher = AutoModelForCausalLM.from_pretrained(models / "deep")
    assert torch.equal(context.student.model.embed_tokens.weight, teacher.model.embed_tokens.weight)
    for ours, theirs in zip(context.student.model.layers, teacher.model.layers[::3], strict=True):
        assert torch.equal(ours.self_attn.q_proj.weight, theirs.self_attn.q_proj.weight)
        assert ours.mlp.up_proj.weight.shape == (32, 48)  # of 64 channels
    card = json.loads((tmp_path / "student_cut" / "student.json").read_text())
    assert card["layers"] == [0, 3]
    assert card["cost"]["comparison"]["kl"] > 0
    assert "student.arch: teacher:layers=0,3;ffn=magnitude:0.5" in (tmp_path / "student_cut" / "README.md").read_text()


def test_it_is_cut_once_for_the_same_inputs(models, tmp_path, monkeypatch):
    config = make_config(models, tmp_path, "teacher:block_influence:50%")
    first = prepared(config).student.state_dict()
    monkeypatch.setattr(student_arch, "init_student", lambda *_, **__: pytest.fail("cut again"))
    again = prepared(config).student.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    with pytest.raises(BaseException, match="cut again"):
        prepared(make_config(models, tmp_path, "teacher:ffn=0.5"))


def test_a_run_from_python_cuts_trains_and_exports_the_student(models, tmp_path):
    own = own_models.settings(models, tmp_path)
    kept = {k: v for k, v in own.items() if k in SETTINGS or k.startswith(("anchor", "teacher"))}
    kept |= UNCHECKED | {"ppo.num_steps": 1}
    distiller = Distiller(
        str(models / "deep"), "teacher:50%", data=models / "train.jsonl", output_dir=tmp_path, settings=kept
    )
    results = distiller.train()
    assert results["config"]["student"]["arch"] == "teacher:50%"
    weights = load_file(tmp_path / "student" / "model.safetensors")
    assert {name.split(".")[2] for name in weights if name.startswith("model.layers.")} == {"0", "1"}
    readme = (tmp_path / "student" / "README.md").read_text()
    assert f"base_model: {models / 'deep'}" in readme
    assert "student.arch: `teacher:50%`" in readme


@pytest.mark.parametrize(
    ("arch", "changes", "message"),
    [
        ("teacher:50%", {"student__model": "x"}, "leave one of them out"),
        ("teacher:50%", {"teachers": [{"model": "a"}, {"model": "b", "tasks": ["math"]}]}, "cuts one teacher"),
        (
            "teacher:50%",
            {"teacher__placement": "remote", "teacher__server": {"base_url": "http://localhost:1/v1"}},
            "a server sends none",
        ),
        ("half", {}, "student_arch: want teacher:50%"),
        ("teacher:layers=0,7", {}, "student.arch: layers: "),
        ("teacher:vocab=corpus.txt", {}, "another vocabulary cannot be anchored"),
    ],
)
def test_what_cannot_be_cut_is_refused_in_one_line(models, tmp_path, arch, changes, message):
    settings = own_models.settings(models, tmp_path, teacher__model=str(models / "deep"), student__arch=arch)
    settings = {k: v for k, v in settings.items() if k != "student.model"} | UNCHECKED
    settings |= {name.replace("__", "."): value for name, value in changes.items()}
    if changes.get("teacher__placement"):
        settings |= {"anchor.estimator": "top_k", "ppo.critic": "shared"}
    with pytest.raises(ConfigError, match=message) as refused:
        prepared(load_config(None, settings))
    assert "\n" not in str(refused.value)


def test_too_few_right_answers_are_refused_only_where_importance_is_measured(models, tmp_path):
    config = make_config(models, tmp_path, "teacher:block_influence:50%")
    checked = replace(config, rewards=({"fn": "task_check", "weight": 1.0},))  # an untrained teacher solves nothing
    with pytest.raises(ConfigError, match=r"student.arch: 0 of the teacher's \d+ answers pass"):
        prepared(checked)
    uniform = replace(checked, student=replace(checked.student, arch="teacher:50%"))
    prepared(uniform)
    card = json.loads((tmp_path / "student_cut" / "student.json").read_text())
    assert card["cost"] is None
