"""DeepSpeed: whole weights where ZeRO keeps shards of them, a frozen model in shards.

Everything else about DeepSpeed is in Trainer's and Accelerate's hands. Where it is off, weights are whole as they are.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from typing import Any

import torch

from ..config import ConfigError
from ..errors import LaunchError

USE_DEEPSPEED = "ACCELERATE_USE_DEEPSPEED"


def is_deepspeed() -> bool:
    return os.environ.get(USE_DEEPSPEED, "false").lower() == "true"


def zero_stage() -> int:
    """The stage `accelerate launch` was asked for; 0 without DeepSpeed."""
    return int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")) if is_deepspeed() else 0


def prepare_environment(on_cpu: bool) -> None:
    """To be called before anything imports DeepSpeed. Raises RuntimeError where `--cpu` would turn it off unnoticed."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true":
        raise LaunchError(
            "accelerate launch --cpu turns DeepSpeed into plain DDP without a word: leave --cpu out (without a GPU "
            "DeepSpeed runs on the CPU by itself)"
        )
    if on_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] = "true"  # else checkpoints hold shards only


def gathered_weights(engine: Any, accelerator: Any) -> contextlib.AbstractContextManager[Any]:
    """Inside, every process holds all weights of `engine`'s module (ZeRO-3 gathers them)."""
    if zero_stage() < 3:
        return contextlib.nullcontext()
    from trl.models import unwrap_model_for_generation

    return unwrap_model_for_generation(engine, accelerator)


@contextlib.contextmanager
def writable_weights(model: Any) -> Iterator[None]:
    """Inside, the main process may write to the weights; under ZeRO-3 its changes reach all shards on exit."""
    if zero_stage() < 3:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(model.parameters()), modifier_rank=0):
        yield


def shard(module: Any, hidden_size: int) -> None:
    """Shares the weights of a frozen module out over this side's processes (ZeRO-3, no optimizer).

    Every forward of `module` gathers them matrix by matrix, so all processes have to do it, equally often. Weights of
    `hidden_size` order, such as norms, stay whole. Works under every launch of several processes.
    """
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError("teacher.sharded needs DeepSpeed: pip install 'rl_distill[deepspeed]'")
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    dtype = next(module.parameters()).dtype
    config = {
        "train_micro_batch_size_per_gpu": 1,  # DeepSpeed wants one; nothing trains
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 10 * hidden_size},
        "bf16": {"enabled": dtype == torch.bfloat16},
        "fp16": {"enabled": dtype == torch.float16},
    }
    deepspeed.zero.Init(module=module, config_dict_or_path=config)  # in pieces to the GPU, which may not hold it whole
    for buffer in module.buffers():
        buffer.data = buffer.data.to(get_accelerator().current_device_name())
    deepspeed.initialize(model=module, config=config)
