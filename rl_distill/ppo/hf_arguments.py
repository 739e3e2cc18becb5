"""What the config means to transformers.Trainer, whose steps are optimizer steps while the config's are PPO steps."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import TrainingArguments

from .. import distributed
from ..config import ConfigError, RunConfig
from ..hf_training import make_training_arguments
from ..models.loading import student_dtype
from .rank_padding import check_rows, micro_batches_per_update, rows_per_minibatch


def updates_per_step(config: RunConfig) -> int:
    """Optimizer steps of one PPO step."""
    return config.ppo.num_epochs * config.ppo.num_minibatches


def check_launch(config: RunConfig) -> None:
    """Raises ValueError where this launch cannot train what the config asks for: rows that cannot be shared out,
    bf16 weights without float32 copies, what FSDP lacks.
    """
    check_rows(config)
    student_dtype(config)
    wanted = {
        "student.lora": config.student.lora is not None,
        "generation.engine: vllm": config.generation.engine != "transformers",
        "reward_refresh": config.reward_refresh is not None,
    }
    lacking = [name for name, is_wanted in wanted.items() if is_wanted]
    if distributed.is_fsdp() and lacking:
        raise ConfigError(f"{', '.join(lacking)} cannot be had under FSDP; launch with configs/accelerate/ddp.yaml")


def training_arguments(config: RunConfig, output_dir: Path, longest_row: int) -> TrainingArguments:
    """The arguments of a run whose rows have up to so many tokens; raises ValueError where the launch cannot hold it
    (see check_launch).
    """
    check_launch(config)
    ppo, updates, rows = config.ppo, updates_per_step(config), rows_per_minibatch(config)
    return make_training_arguments(
        config,
        output_dir,
        final_learning_rate_fraction=ppo.final_learning_rate_fraction,
        max_steps=ppo.num_steps * updates,
        per_device_train_batch_size=min(ppo.micro_batch_size, rows),
        gradient_accumulation_steps=micro_batches_per_update(config, longest_row),
        learning_rate=ppo.learning_rate,
        warmup_steps=ppo.warmup_steps * updates,
        weight_decay=ppo.weight_decay,
        adam_beta2=ppo.adam_beta2,
        max_grad_norm=ppo.max_grad_norm if distributed.is_deepspeed() else 0.0,
        use_cpu=(ppo.bf16 or distributed.is_fsdp()) and not torch.cuda.is_available(),
        logging_steps=updates,
        eval_steps=config.evaluation.every_steps * updates,
        metric_for_best_model="eval_accuracy",
        greater_is_better=True,
        save_steps=config.checkpoint.every_steps * updates,
    )
