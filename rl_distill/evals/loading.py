"""Models and tokenizers for an evaluation: loaded, or refused in one line.

It may assume a folder or a hub id. It will not run code that comes with a model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..errors import UserError


class ModelError(UserError, ValueError):
    """A model cannot be evaluated as it stands; the message is one line that says why."""


def load_tokenizer(path: str) -> Any:
    """The tokenizer of a folder or hub id; ModelError where there is none."""
    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:  # not there, or of a kind that this transformers does not know
        raise _refused(path, error) from error


def load_model(path: str, dtype: str, device: torch.device) -> Any:
    """A model in evaluation mode on the device; `auto` is the checkpoint's own type, float32 where there is no GPU.

    ModelError where it cannot be loaded.
    """
    dtype = "float32" if dtype == "auto" and device.type == "cpu" else dtype
    try:
        model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    except (OSError, ValueError) as error:
        raise _refused(path, error) from error
    return model.to(device).eval()


def _refused(path: str, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())
    return ModelError(f"model {path!r} cannot be loaded: {reason[:300]}")


def check_lengths(model: Any, prompt_ids: Iterable[list[int]], max_new_tokens: int) -> None:
    """ModelError where a prompt is empty, or with its answer longer than the positions the model was made for."""
    lengths = [len(ids) for ids in prompt_ids]
    if min(lengths, default=1) == 0:
        raise ModelError("a prompt is empty: there is nothing that a model could continue")
    limit = getattr(model.config, "max_position_embeddings", None)
    longest = max(lengths, default=0)
    if limit is not None and longest + max_new_tokens > limit:
        raise ModelError(
            f"the longest prompt has {longest} tokens, with --max_new_tokens {max_new_tokens} more than the {limit} "
            f"positions of the model; at most {max(0, limit - longest)} are left for answers"
        )
