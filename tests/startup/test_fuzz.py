"""Configs drawn around the valid ranges: each either trains two steps or ends in one line that speaks to the user."""

from __future__ import annotations

import json
import random

import pytest

from rl_distill import pipeline, run_setup
from rl_distill.config import load_config
from rl_distill.config.reading import parse_override
from rl_distill.errors import USER_ERROR, in_one_line
from rl_distill.ppo.hf_arguments import check_launch
from rl_distill.ppo.lifecycle.resume import check_resume
from rl_distill.progress import Stages
from tests import own_models

NUM_DRAWS, NUM_QUICK = 200, 10
# What a user might type for a setting: good values, the ends of its range, beyond them, and of another kind.
VALUES: dict[str, tuple[str, ...]] = {
    "seed": ("0", "-1", "99999999999", "x"),
    "report_to": ("[]", "tensorboard", "[wandb]", "[nothing]"),
    "log_completions_every": ("1", "0", "null"),
    "num_threads": ("1", "0", "-2"),
    "resume_from_checkpoint": ("latest", "checkpoint-9", "/nowhere"),
    "ppo.batch_size": ("1", "2", "7", "0", "-4", "1.5"),
    "ppo.group_size": ("1", "2", "3", "0"),
    "ppo.num_epochs": ("1", "2", "0"),
    "ppo.num_minibatches": ("1", "2", "3", "0"),
    "ppo.micro_batch_size": ("1", "3", "100", "0"),
    "ppo.advantage": ("gae", "group_mean", "none"),
    "ppo.critic": ("teacher_informed", "shared", "separate", "big"),
    "ppo.critic_warmup_steps": ("0", "1", "100", "-1"),
    "ppo.gamma": ("1", "0", "1.5"),
    "ppo.lam": ("0", "1", "2"),
    "ppo.clip_low": ("0.1", "0", "1", "2"),
    "ppo.dual_clip": ("null", "3", "0.5"),
    "ppo.value_clip": ("null", "0.2", "0"),
    "ppo.normalize_advantages": ("none", "center", "standardize"),
    "ppo.learning_rate": ("1e-4", "0", "-1", "1e6", "nan"),
    "ppo.warmup_steps": ("0", "5", "-1"),
    "ppo.max_grad_norm": ("1", "0", "-1"),
    "ppo.stop_at_kl": ("null", "0.0000001", "50"),
    "ppo.bf16": ("false", "true"),
    "generation.max_completion_length": ("1", "5", "505", "600", "0"),
    "generation.temperature": ("0.5", "1", "0", "-1", "100"),
    "generation.temperature_end": ("null", "0.5", "0"),
    "generation.top_p": ("0.5", "1", "0", "1.5"),
    "generation.stop": ("[]", "['A:']", "['']", "A:"),
    "generation.batch_size": ("1", "64", "0"),
    "generation.engine": ("transformers", "vllm_colocate", "vllm_server"),
    "anchor.placement": ("loss", "reward", "none"),
    "anchor.estimator": ("exact", "k1", "k2", "k3", "top_k"),
    "anchor.schedule": ("fixed", "anneal", "adaptive", "evidence"),
    "anchor.top_k": ("1", "8", "0", "100000"),
    "anchor.coef": ("0", "1", "-1"),
    "anchor.anneal_start": ("0.1", "0.9"),
    "evaluation.every_steps": ("1", "0", "1000"),
    "evaluation.patience": ("null", "1", "0"),
    "evaluation.load_best": ("false", "true"),
    "checkpoint.every_steps": ("1", "0", "1000"),
    "checkpoint.every_minutes": ("null", "15", "0", "-1"),
    "checkpoint.keep_last": ("1", "2", "0"),
    "student.model": ("STUDENT", "nowhere", "STUDENT/config.json"),
    "student.dtype": ("float32", "bfloat16", "float8"),
    "student.lora": ("null", "{r: 2}", "{r: 0}", "{target_modules: [q_proj]}", "{target_modules: [nothing]}"),
    "student.quantization": ("null", "4bit"),
    "student.gradient_checkpointing": ("false", "true"),
    "teacher.model": ("LARGE", "SMALL", "null", "nowhere"),
    "teacher.micro_batch_size": ("1", "0"),
    "teacher.placement": ("colocated", "remote", "dedicated"),
    "teacher.quantization": ("null", "8bit"),
    "teacher.sharded": ("false", "true"),
    "teacher.num_outputs_per_prompt": ("0", "1", "2", "-1"),
    "teacher.num_evidence_prompts": ("4", "1", "0"),
    "data.train": ("DATA", "nowhere.jsonl", "nobody/nothing", "[DATA, DATA]", "null"),
    "data.validation": ("null", "DATA", "nowhere.jsonl"),
    "data.prompt_column": ("prompt", "question"),
    "data.prompt_template": ("null", "Q: {prompt}\nA:", "{nothing}", r"\boxed{}", "{"),
    "data.chat": ("false", "true"),
    "data.max_prompt_length": ("null", "100", "1", "0"),
    "data.overlong_prompts": ("drop", "cut", "refuse"),
    "data.chat_template_kwargs": ("{}", "{enable_thinking: false}", "[a]"),
    "rewards": (
        "[{fn: task_check}]",
        "[{fn: math_answer}]",
        "[{fn: bleu}]",
        "[{fn: nothing}]",
        "[]",
        "[{fn: task_check, weight: a}]",
        "[{fn: think_format}]",
    ),
    "reward_refresh": ("null", "{every_steps: 1}"),
    "distributed.timeout_s": ("1800", "0"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("models"))


def drawn(number: int, folder) -> dict[str, str]:
    """The settings of one draw: a few of the table, most often good ones (they come first)."""
    rng = random.Random(f"fuzz:{number}")
    names = rng.sample(sorted(VALUES), rng.randint(1, 5))
    places = {"STUDENT": "student", "LARGE": "large", "SMALL": "small", "DATA": "train.jsonl"}
    found = {}
    for name in names:
        value = rng.choice(VALUES[name][:2] if rng.random() < 0.6 else VALUES[name])
        for word, file in places.items():
            value = value.replace(word, str(folder / file))
        found[name] = value
    return found


def outcome(settings, folder, output_dir) -> str:
    """ "trained", or the line that the run ends with; an error that speaks to nobody is raised."""
    own = {"teacher.model": str(folder / "large"), "ppo.num_steps": 2, "teacher.num_evidence_prompts": 4}
    typed = {name: parse_override(value) for name, value in settings.items()}
    try:
        config = load_config(None, own_models.settings(folder, output_dir) | own | typed)
        check_launch(config)
        check_resume(config)
        context = run_setup.prepare(config, Stages(quiet=True))
        pipeline.train(config, pipeline.make_trainer(config, context))
        return "trained"
    except Exception as error:
        words, status = in_one_line(error)
        if status != USER_ERROR:
            raise
        return words


def check(number, folder, output_dir):
    settings = drawn(number, folder)
    try:
        words = outcome(settings, folder, output_dir)
    except Exception as error:
        raise AssertionError(f"draw {number}: {json.dumps(settings)}") from error
    lines = words.split("\n")
    assert len(lines) == 1 or all(line.startswith("  - ") for line in lines[1:]), (settings, words)
    assert 0 < max(map(len, lines)) < 700, (settings, words)


@pytest.mark.parametrize("number", range(NUM_QUICK))
def test_a_config_trains_or_ends_in_one_line(number, folder, tmp_path):
    check(number, folder, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(NUM_QUICK, NUM_DRAWS))
def test_many_more_configs_do(number, folder, tmp_path):
    check(number, folder, tmp_path / "run")


def test_the_draws_hold_both_runs_and_mistakes(folder, tmp_path):
    assert outcome({}, folder, tmp_path / "good") == "trained"
    assert outcome({"ppo.batch_size": "0"}, folder, tmp_path / "bad") != "trained"
