"""Whether a model's logits are what this project takes them for: its head applied to its last hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..config import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE_TOKENS = 3


@torch.no_grad()
def check_head(model: PreTrainedModel, who: str, *, bias_allowed: bool) -> None:
    """Raises ConfigError where the logits are more than that: scaled (Cohere, Granite) or soft-capped (Gemma 2), or
    where the head has a bias that is not allowed.

    Log-probabilities and KL are formed from hidden states and the head's weight in chunks, so what a model does to its
    logits afterwards would be left out without a word.
    """
    if not bias_allowed:
        check_bias(model, who)
    head = model.get_output_embeddings()
    ids = torch.arange(PROBE_TOKENS, device=head.weight.device)[None]
    expected = head(model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state).float()
    logits = model(input_ids=ids, use_cache=False).logits.float()
    if not torch.allclose(logits, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max())):
        raise ConfigError(
            f"{who}: {_kind(model)} scales or caps its logits after the language-model head, which log-probabilities "
            "formed from hidden states leave out; such models are not supported"
        )


def check_bias(model: PreTrainedModel, who: str) -> None:
    """Raises ConfigError where the head has a bias; runs nothing."""
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise ConfigError(
            f"{who}: the language-model head of {_kind(model)} has a bias, which the KL to the teacher leaves out; "
            "take a model without one"
        )


def _kind(model: PreTrainedModel) -> str:
    return getattr(model.config, "model_type", type(model).__name__)
