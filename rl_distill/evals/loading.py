"""What an evaluation asks of a model beyond loading it: room for the prompts and their answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from ..config import ConfigError
from ..models import loading
from ..models.positions import num_positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_model(path: str, dtype: str, device: torch.device) -> Any:
    """A model in evaluation mode on the device; `auto` is the checkpoint's own type, float32 where there is no GPU.

    ConfigError where it cannot be loaded.
    """
    dtype = "float32" if dtype == "auto" and device.type == "cpu" else dtype
    return loading.load_model(path, dtype).to(device).eval()


def check_lengths(model: PreTrainedModel, prompt_ids: Iterable[list[int]], max_new_tokens: int) -> None:
    """ConfigError where a prompt is empty, or with its answer longer than the positions the model was made for."""
    lengths = [len(ids) for ids in prompt_ids]
    if min(lengths, default=1) == 0:
        raise ConfigError("a prompt is empty: there is nothing that a model could continue")
    limit = num_positions(model.config)
    longest = max(lengths, default=0)
    if limit is not None and longest + max_new_tokens > limit:
        raise ConfigError(
            f"the longest prompt has {longest} tokens, with --max_new_tokens {max_new_tokens} more than the {limit} "
            f"positions of the model; at most {max(0, limit - longest)} are left for answers"
        )
