"""Models and tokenizers from a folder or the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from .. import distributed
from .lora import quantization_config


def load(path: Path | str, dtype: str = "float32", quantization: str | None = None) -> tuple[Any, Any]:
    """(model, tokenizer) of a folder or hub id; `quantization` "4bit" or "8bit" loads the weights by bitsandbytes."""
    options: dict[str, Any] = {}
    if quantization is not None:
        options = {"quantization_config": quantization_config(quantization), "device_map": {"": distributed.device()}}
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **options)
    return model, AutoTokenizer.from_pretrained(path)
