"""The doctor's view of a run's own settings: what it would examine, and how the run would use its GPUs.

May assume a checked RunConfig. Loads nothing; `plan_of` also serves the memory estimate of a dry run.
"""

from __future__ import annotations

from typing import cast

from ..config import ConfigError, RunConfig, teachers_of
from . import memory
from .diagnosis import Case


def case_of(config: RunConfig, num_gpus: int = 1, zero_stage: int = 0, gpu_gib: float | None = None) -> Case:
    """The run's models, data and plan. ConfigError for the demo, which makes its own models and data."""
    if config.demo is not None:
        raise ConfigError(
            "this config makes its own models and data (demo), so there is nothing to examine; "
            "`rl-distill ppo --dry_run` prints what the run would do"
        )
    return Case(
        str(config.student_source),
        str(teachers_of(config)[0].model),
        ", ".join(str(entry.train) for entry in config.data.mixture or (config.data,)),
        plan=plan_of(config, num_gpus, zero_stage),
        gpu_gib=gpu_gib,
        run=config,
    )


def plan_of(config: RunConfig, num_gpus: int = 1, zero_stage: int = 0) -> memory.Plan:
    """How the run would use `num_gpus` GPUs of the student (dedicated teacher processes come on top)."""
    teacher, student, generation = teachers_of(config)[0], config.student, config.generation
    return memory.Plan(
        num_gpus=num_gpus,
        zero_stage=cast("memory.ZeroStage", zero_stage),
        placement=teacher.placement,
        teacher_gpus=teacher.num_processes,
        teacher_sharded=teacher.sharded,
        student_dtype="float32" if student.dtype == "auto" else student.dtype,
        bf16=config.ppo.bf16,
        teacher_dtype="bfloat16" if teacher.dtype == "auto" else teacher.dtype,
        teacher_quantization=teacher.quantization,
        num_teachers=len(teachers_of(config)),
        student_quantization=student.quantization,
        lora_r=None if student.lora is None else student.lora.r,
        separate_critic=config.ppo.advantage == "gae" and config.ppo.critic == "separate",
        gradient_checkpointing=student.gradient_checkpointing,
        micro_batch_size=rows_per_forward(config),
        generation_batch_size=generation.batch_size,
        prompt_length=config.data.max_prompt_length or 512,
        completion_length=generation.max_completion_length,
        sampling_copy=generation.dtype == "bfloat16",
    )


def rows_per_forward(config: RunConfig) -> int:
    """Rows of a training forward where all are as long as they may be."""
    ppo, longest = config.ppo, (config.data.max_prompt_length or 512) + config.generation.max_completion_length
    return ppo.micro_batch_size if ppo.micro_batch_tokens is None else max(1, ppo.micro_batch_tokens // longest)
