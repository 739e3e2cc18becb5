"""What every trainer of the project hands to transformers.Trainer, and how it adds its metrics over processes.

Assumes a RunConfig; the trainers say what is theirs (steps, batch, rates, intervals).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainingArguments

from . import distributed
from .config import RunConfig


def make_training_arguments(
    config: RunConfig, output_dir: Path, *, final_learning_rate_fraction: float, **own: Any
) -> TrainingArguments:
    """TrainingArguments with the run's trackers, precision, seed and launch, and `own` ones.

    The rate falls along a cosine to that fraction of the highest. Data order and old checkpoints are the trainer's
    business, not Trainer's.
    """
    sharded = distributed.is_deepspeed() or distributed.is_fsdp()
    arguments = TrainingArguments(
        output_dir=str(output_dir),
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": final_learning_rate_fraction},
        bf16=config.ppo.bf16,
        gradient_checkpointing=config.student.gradient_checkpointing,
        logging_strategy="steps",
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        save_strategy="steps",
        save_total_limit=None,  # CompleteCheckpoints removes old ones, after the new one is whole
        report_to=config.trackers,
        disable_tqdm=True,
        remove_unused_columns=False,
        ignore_data_skip=True,
        seed=config.seed,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if sharded and not torch.cuda.is_available() else None,
        accelerator_config={"use_configured_state": distributed.world_size() > 1 and not sharded},
        **own,
    )
    distributed.shard_on_cpu(arguments.distributed_state)
    return distributed.on_one_device(arguments)


def summed_over_processes(stats: Sequence[Mapping[str, Tensor]], divisor: float) -> dict[str, float]:
    """Each name's sum over all micro-batches and processes, divided by `divisor`; a name may lack in some of them."""
    names = sorted({name for piece in stats for name in piece})
    sums = torch.stack([torch.stack([piece[n].double() for piece in stats if n in piece]).sum() for n in names])
    return dict(zip(names, (distributed.sum_over_processes(sums) / divisor).tolist(), strict=True))
