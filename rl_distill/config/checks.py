"""Settings that contradict each other, told with what to do instead.

Pure looks at a configuration: no torch, no files. What only a launch or the data can show is checked where it is known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .reading import ConfigError
from .sampling import PRESETS

if TYPE_CHECKING:
    from . import AnchorConfig, RunConfig, TeacherConfig, TinyModelConfig


def check(config: RunConfig, teachers: Sequence[TeacherConfig]) -> None:
    """Raises ConfigError at the first contradiction; `teachers` are those of the run, each with all its settings."""
    _check_ppo(config)
    _check_schedule(config.anchor)
    if config.teachers:
        _check_teachers(config, teachers)
    for teacher in teachers:
        _check_teacher(config, teacher)
    _check_writing(config)
    _check_arch(config)
    _check_rest(config)
    _check_mixture(config)
    if config.demo is None:
        _check_own(config, teachers)
    else:
        _check_demo(config)
        _check_shape("teacher", config.demo.teacher)
        _check_shape("student", config.demo.student)


def _check_ppo(config: RunConfig) -> None:
    ppo = config.ppo
    _check_anchor(config)
    if ppo.batch_size % ppo.group_size:
        raise ConfigError(f"ppo.batch_size ({ppo.batch_size}) must be a multiple of ppo.group_size ({ppo.group_size})")
    if ppo.advantage == "group_mean" and ppo.group_size < 2:
        raise ConfigError(
            "ppo.advantage: group_mean compares completions of one prompt: set ppo.group_size to 2 or more"
        )
    if ppo.batch_size % ppo.num_minibatches:
        raise ConfigError(
            f"ppo.batch_size ({ppo.batch_size}) must be a multiple of ppo.num_minibatches ({ppo.num_minibatches})"
        )
    if ppo.advantage == "gae" and ppo.critic_warmup_steps >= ppo.num_steps:
        raise ConfigError(
            f"ppo.critic_warmup_steps ({ppo.critic_warmup_steps}) must be below ppo.num_steps ({ppo.num_steps}): in "
            "those steps only the critic learns, so the student would never train; lower it or raise ppo.num_steps"
        )


def _check_anchor(config: RunConfig) -> None:
    """Each placement takes the estimators whose gradient there is the KL's (rl_distill/maths/kl.py says why)."""
    placement, estimator = config.anchor.placement, config.anchor.estimator
    _check_anchored_prompts(config)
    cure = "set anchor.estimator: k1, or anchor.placement: loss"
    if placement == "reward" and estimator in ("exact", "top_k"):
        raise ConfigError(
            f"anchor.estimator: {estimator} has no gradient as a reward, because the KL of a state does not depend on "
            f"the token chosen there: {cure}"
        )
    if placement == "reward" and estimator in ("k2", "k3"):
        raise ConfigError(f"anchor.estimator: {estimator} as a reward has the gradient of another function: {cure}")
    if placement == "loss" and estimator == "k1":
        raise ConfigError(
            "anchor.estimator: k1 has a gradient of zero on average as a loss: set anchor.estimator: exact, or k2 "
            "where the teacher is behind a server, or anchor.placement: reward"
        )


def _check_anchored_prompts(config: RunConfig) -> None:
    """Where the teacher's own answers decide which prompts the anchor acts on."""
    anchor = config.anchor
    if anchor.prompts != "all" and anchor.placement == "none":
        raise ConfigError(f"anchor.prompts: {anchor.prompts} says where the anchor acts: set anchor.placement to loss")
    if anchor.prompts != "all" and config.teacher.selection == "curriculum" and config.teachers:
        raise ConfigError(
            f"anchor.prompts: {anchor.prompts} goes by one teacher's answers, and teacher.selection: curriculum "
            "changes the teacher: set anchor.prompts to all"
        )
    if anchor.prompts == "routed" and anchor.placement == "reward":
        raise ConfigError(
            "anchor.prompts: routed takes the reward away where the anchor acts, and anchor.placement: reward makes "
            "the anchor a part of it: set anchor.placement to loss"
        )


def _check_schedule(anchor: AnchorConfig) -> None:
    if anchor.schedule == "anneal" and anchor.anneal_start >= anchor.anneal_end:
        raise ConfigError(
            f"anchor.anneal_start ({anchor.anneal_start:g}) must be below anchor.anneal_end ({anchor.anneal_end:g})"
        )
    if anchor.schedule == "adaptive" and anchor.coef == 0:
        raise ConfigError("anchor.schedule: adaptive multiplies anchor.coef: set it above 0")
    if anchor.schedule == "evidence" and anchor.evidence_floor > anchor.coef:
        raise ConfigError(
            f"anchor.evidence_floor ({anchor.evidence_floor:g}) must be at most anchor.coef ({anchor.coef:g}), "
            "the coefficient's highest value"
        )


def _check_demo(config: RunConfig) -> None:
    """The demo makes models and data; those that the user names would be ignored without a word."""
    named = {
        "student.model": config.student.model,
        "teacher.model": config.teacher.model,
        "data.train": config.data.train,
        "data.validation": config.data.validation,
        "data.test": config.data.test,
    }
    ignored = [name for name, value in named.items() if value is not None]
    if ignored:
        raise ConfigError(
            f"{', '.join(ignored)} would be ignored, because the demo makes models and data itself: for your own set "
            "demo: null (on the command line --demo null), and student.model, teacher.model and data.train"
        )


def _check_shape(name: str, shape: TinyModelConfig) -> None:
    if shape.hidden_size % (2 * shape.num_heads):
        raise ConfigError(
            f"demo.{name}.hidden_size ({shape.hidden_size}) must be a multiple of twice its num_heads "
            f"({shape.num_heads}): rotary positions turn pairs of numbers within a head"
        )


def _check_rest(config: RunConfig) -> None:
    if config.student.quantization is not None and config.student.lora is None:
        raise ConfigError("student.quantization freezes the weights: set student.lora too, for something to train")
    if config.student.quantization is not None and config.ppo.critic == "separate" and config.ppo.advantage == "gae":
        raise ConfigError(
            "ppo.critic: separate trains a copy of the student's trunk, and quantized weights do not train: set "
            "ppo.critic to shared or teacher_informed"
        )
    if "" in config.generation.stop:
        raise ConfigError("generation.stop: an empty text would end every completion at its first token; leave it out")
    if config.generation.engine == "vllm_server" and config.generation.vllm.server_base_url is None:
        raise ConfigError("generation.engine: vllm_server needs generation.vllm.server_base_url")
    if config.generation.dtype != "student" and config.generation.engine != "transformers":
        raise ConfigError("generation.dtype is of engine: transformers; vLLM has a dtype of its own: leave it out")
    if config.generation.dtype != "student" and config.student.quantization is not None:
        raise ConfigError("generation.dtype: quantized weights sample as they are; leave it out")


def _check_mixture(config: RunConfig) -> None:
    entries = config.data.mixture
    if entries is None:
        if config.data.mixture_preset is not None or config.data.share_by != "rows":
            raise ConfigError("data.mixture_preset and data.share_by are of data.mixture: give its entries")
        return
    if config.data.train is not None:
        raise ConfigError("data.train and data.mixture exclude each other: make data.train an entry of data.mixture")
    if config.demo is not None:
        raise ConfigError("data.mixture needs models and data of your own: demo: null")
    if not entries:
        raise ConfigError("data.mixture is empty: give entries such as {train: a.jsonl, task: math, share: 0.5}")
    lacking = [number for number, entry in enumerate(entries) if not entry.train]
    if lacking:
        raise ConfigError(f"data.mixture[{lacking[0]}] needs `train`: where its prompts are")
    if config.anchor.placement != "loss" and any(entry.anchor_only for entry in entries):
        raise ConfigError("data.mixture: anchor_only needs anchor.placement: loss, or nothing would act on its prompts")
    if all(entry.anchor_only for entry in entries):
        raise ConfigError("data.mixture: every entry is anchor_only; PPO needs one with rewards")
    names = [entry.label for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"data.mixture: two entries are called {twice[0]!r}; give one of them another `name`")
    if config.data.mixture_preset is not None:
        _check_preset(config.data.mixture_preset, [entry.part for entry in entries])


def _check_preset(preset: str, parts: Sequence[str]) -> None:
    part = PRESETS[preset][0]
    if part not in parts or set(parts) == {part}:
        raise ConfigError(
            f"data.mixture_preset: {preset} divides between entries with `part: {part}` and others, and there are "
            f"{'none of the former' if part not in parts else 'no others'}"
        )


def _check_own(config: RunConfig, teachers: Sequence[TeacherConfig]) -> None:
    needed = {
        "student.model": config.student_source is not None,
        "teacher.model": all(teacher.model for teacher in teachers),
        "data.train": config.data.train is not None or bool(config.data.mixture),
    }
    missing = [name for name, is_set in needed.items() if not is_set]
    if missing:
        raise ConfigError(f"demo is null, so {', '.join(missing)} must be set")


def _check_teacher(config: RunConfig, teacher: TeacherConfig) -> None:
    _check_precision(teacher)
    if teacher.placement == "remote":
        _check_remote(dataclasses.replace(config, teacher=teacher))
    if teacher.sharded and teacher.placement == "dedicated" and teacher.num_processes < 2:
        raise ConfigError("teacher.sharded needs several processes: set teacher.num_processes to 2 or more")
    if teacher.sharded and teacher.placement == "colocated" and config.reward_refresh is not None:
        raise ConfigError("teacher.sharded beside the student needs all processes at once: leave reward_refresh out")


def _check_writing(config: RunConfig) -> None:
    """The teacher's own prompts, and the API that writes its texts."""
    teacher, distill = config.teacher, config.distill
    asked = {"prompt_template": teacher.prompt_template, "text_api": teacher.text_api}
    for name in (name for name, value in asked.items() if value is not None):
        if config.demo is not None:
            raise ConfigError(f"teacher.{name} needs models and data of your own: demo: null")
        if config.teachers:
            raise ConfigError(f"teacher.{name} is for one teacher: leave `teachers` out")
    if teacher.text_api is not None and not (teacher.text_api.url and teacher.text_api.model):
        raise ConfigError("teacher.text_api needs url and model: {url: https://api.openai.com/v1, model: gpt-5-mini}")
    if teacher.prompt_template is None or distill is None:
        return
    inner = distill.inner
    if inner.hidden_map is not None or inner.attention_map is not None or inner.embedding_coef:
        raise ConfigError(
            "teacher.prompt_template gives the teacher another prompt than the student, and distill.inner compares "
            "their states token by token: leave one of them out"
        )


def _check_arch(config: RunConfig) -> None:
    """A student cut from the teacher, whose weights must then be at hand."""
    if config.student.arch is None:
        return
    if config.student.model is not None:
        raise ConfigError("student.arch makes the student, and student.model names one: leave one of them out")
    if config.teachers:
        raise ConfigError("student.arch cuts one teacher: leave `teachers` out, or cut by `rl-distill init-student`")
    if config.teacher.placement == "remote":
        raise ConfigError(
            "student.arch needs the teacher's weights, and a server sends none: cut by `rl-distill init-student` and "
            "set student.model"
        )


def _check_precision(teacher: TeacherConfig) -> None:
    if teacher.quantization is None:
        return
    if teacher.model is None:
        raise ConfigError("teacher.quantization is for a teacher of your own (teacher.model), not the demo one")
    if teacher.sharded:
        raise ConfigError("teacher.quantization and teacher.sharded exclude each other: quantized weights stay whole")
    if teacher.placement == "remote":
        raise ConfigError("teacher.quantization: behind a server the precision is the server's; set it there")


def _check_teachers(config: RunConfig, teachers: Sequence[TeacherConfig]) -> None:
    selection = config.teacher.selection
    if config.demo is not None:
        raise ConfigError("teachers needs models and data of your own: demo: null")
    if len(teachers) < 2:
        raise ConfigError("teachers has one entry: give two or more, or set teacher.model instead")
    lacking = [number for number, teacher in enumerate(teachers) if teacher.model is None]
    if lacking:
        raise ConfigError(f"teachers[{lacking[0]}] needs `model` (behind a server it names the tokenizer)")
    named = [task for teacher in teachers for task in teacher.tasks]
    if selection != "by_task" and named:
        raise ConfigError(f"teacher.selection: {selection} does not go by task: leave `tasks` out of teachers")
    if selection == "by_task" and len(set(named)) < len(named):
        raise ConfigError("teachers: no task may be in `tasks` of two entries")
    if selection == "by_task" and sum(not teacher.tasks for teacher in teachers) > 1:
        raise ConfigError("teachers: one entry may be without `tasks`; name the tasks of the others")
    served = any(teacher.placement == "remote" for teacher in teachers)
    if selection == "ensemble" and served and config.anchor.estimator == "top_k":
        raise ConfigError("teacher.selection: ensemble with a server needs anchor.estimator: k2 (loss) or k1 (reward)")


def _check_remote(config: RunConfig) -> None:
    """A server sends log-probabilities at temperature 1, no hidden states."""
    start = "teacher.placement: remote "
    if config.teacher.sharded:
        raise ConfigError(start + "holds no weights here: leave teacher.sharded out (the server shards by itself)")
    if config.teacher.server.base_url is None:
        raise ConfigError(start + "needs teacher.server.base_url, such as http://localhost:8000/v1")
    if config.demo is not None:
        raise ConfigError(start + "needs models and data of your own: demo: null")
    if config.anchor.placement != "none" and config.anchor.estimator == "exact":
        raise ConfigError(start + "sends no hidden states: set anchor.estimator to top_k, or to k2 (loss), k1 (reward)")
    if config.ppo.advantage == "gae" and config.ppo.critic == "teacher_informed":
        raise ConfigError(start + "sends no hidden states: set ppo.critic to shared or separate")
    if config.generation.temperature != 1 or config.generation.temperature_end not in (None, 1):
        raise ConfigError(start + "scores at temperature 1: set generation.temperature to 1, without temperature_end")
