"""Whether a model reads several rows in one, told apart by their positions, as it reads each alone.

Attention does, through the mask that transformers makes of positions that begin anew; linear attention and convolutions
carry their state over, and some models make a mask of their own. No list says which: each is asked, with a few tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .. import distributed
from ..config import ConfigError, RunConfig
from .critics import hidden_states

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCE = 0.02
"""Of the largest hidden state: half-precision kernels differ by less, rows that see each other by more."""


def packs(config: RunConfig, policy: PreTrainedModel) -> bool:
    """Whether training packs rows (`ppo.packing`); raises ConfigError where it was asked for and the model cannot."""
    wanted = config.ppo.packing
    sharded = distributed.is_deepspeed() or distributed.is_fsdp()
    if wanted == "off" or (wanted == "auto" and (sharded or not is_faster())):
        return False
    if sharded:  # the model cannot be asked where each process has a part of it
        raise ConfigError("ppo.packing: on cannot be had under DeepSpeed or FSDP: set it to off")
    if keeps_rows_apart(policy):
        return True
    if wanted == "on":
        raise ConfigError(
            f"ppo.packing: on needs a model whose rows do not see each other, and those of {policy.config.model_type} "
            "would: set it to off"
        )
    return False


def is_faster() -> bool:
    """Where packing was measured to be faster (benchmarks/ppo_speed.md): on CPUs. Never measured on a GPU."""
    return distributed.device().type == "cpu"


@torch.no_grad()
def keeps_rows_apart(policy: PreTrainedModel) -> bool:
    """Whether the policy's hidden states of two rows in one are those of the rows alone; in evaluation mode."""
    was_training, trunk = policy.training, policy.get_decoder()
    ids = torch.arange(3, 11, device=next(policy.parameters()).device) % policy.config.get_text_config().vocab_size
    policy.eval()
    try:
        positions = torch.cat([torch.arange(5), torch.arange(3)]).to(ids.device)
        together = hidden_states(trunk, ids[None], positions[None])[0].float()
        alone = torch.cat([hidden_states(trunk, row[None])[0] for row in (ids[:5], ids[5:])]).float()
    except (TypeError, ValueError, NotImplementedError):  # takes no positions
        return False
    finally:
        policy.train(was_training)
    return bool((together - alone).abs().max() <= TOLERANCE * alone.abs().max())
