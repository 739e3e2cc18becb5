"""Models and tokenizers from a folder or the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from .. import distributed
from ..config import ConfigError, RunConfig
from .lora import quantization_config


def load(path: Path | str, dtype: str = "float32", quantization: str | None = None) -> tuple[Any, Any]:
    """(model, tokenizer) of a folder or hub id; `quantization` "4bit" or "8bit" loads the weights by bitsandbytes."""
    options: dict[str, Any] = {}
    if quantization is not None:
        options = {"quantization_config": quantization_config(quantization), "device_map": {"": distributed.device()}}
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **options)
    return model, AutoTokenizer.from_pretrained(path)


def student_dtype(config: RunConfig) -> str:
    """In which the student's weights are loaded: those that train in float32, unless DeepSpeed's bf16 engine keeps
    float32 copies. At a learning rate of 1e-6 an update is below half of bf16's spacing for 98 % of the weights.

    Raises ConfigError where bfloat16 is asked for by name and would be trained as it is.
    """
    wanted = config.student.dtype
    if config.student.lora is not None or (distributed.is_deepspeed() and config.ppo.bf16):
        return wanted
    if wanted == "bfloat16":
        raise ConfigError(
            "student.dtype: bfloat16 would round most updates away, as weights that train need float32 copies: set "
            "student.dtype: float32 and ppo.bf16: true to compute in bf16 (under DeepSpeed ppo.bf16 is enough), or "
            "student.lora to keep the weights frozen"
        )
    return "float32"
