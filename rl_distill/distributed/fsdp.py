"""FSDP2: what a launch must ask for, whole weights for sampling, whole weights put back into shards.

Everything else about FSDP is in Trainer's and Accelerate's hands.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..errors import LaunchError

USE_FSDP = "ACCELERATE_USE_FSDP"
NEEDED = {
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",  # others may part the head from the model that reads its weight
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",  # else checkpoints hold shards only
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",  # else the main process alone loads the teacher
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
}


def is_fsdp() -> bool:
    return os.environ.get(USE_FSDP, "false").lower() == "true"


def check_environment() -> None:
    """Raises RuntimeError where `accelerate launch` was asked for an FSDP that cannot train here."""
    for name, needed in NEEDED.items():
        found = os.environ.get(name, "unset")
        if found.lower() != needed.lower():
            raise LaunchError(
                f"under FSDP the launch file must have {name.lower()}: {needed} (it is {found}); "
                "configs/accelerate/fsdp2.yaml does"
            )


def shard_on_cpu(state: Any) -> None:
    """Lets Accelerate shard on a CPU, where without a word it would train under DDP: it shards in MULTI_GPU only.

    `state` is that of TrainingArguments, before Trainer is made.
    """
    from accelerate import DistributedType

    if is_fsdp() and state.device.type == "cpu":
        state.distributed_type = DistributedType.MULTI_GPU


def compute_in_bf16(accelerator: Any) -> None:
    """Under FSDP: weights are gathered in bf16, gradients summed in float32, outputs left as they are.

    Accelerate's own policy would round log-probabilities to bf16. To be called before training.
    """
    if not is_fsdp():
        return
    from torch.distributed.fsdp import MixedPrecisionPolicy

    policy = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    accelerator.state.fsdp_plugin.mixed_precision_policy = policy


@contextlib.contextmanager
def whole_policy(model: Any) -> Iterator[None]:
    """Inside, `model.policy` is a plain copy with all weights on every process: no forward pass of it communicates."""
    sharded = model.policy
    model.policy = _whole_copy(sharded)
    try:
        yield
    finally:
        model.policy = sharded


def _whole_copy(policy: Any) -> Any:
    from accelerate import init_empty_weights
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    with init_empty_weights(include_buffers=False):
        copy = type(policy)(policy.config)
    copy.load_state_dict(get_model_state_dict(policy, options=StateDictOptions(full_state_dict=True)), assign=True)
    copy.tie_weights()
    for name, buffer in policy.named_buffers():
        copy.get_buffer(name).data = buffer
    copy.generation_config = policy.generation_config
    return copy.eval()


def load_shards(model: Any, weights: dict[str, Any]) -> list[str]:
    """Puts whole weights, which every process has, into the shards; returns the names that the model does not know."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    options = StateDictOptions(full_state_dict=True, strict=False)
    return list(set_model_state_dict(model, weights, options=options).unexpected_keys)


def whole_number(x: Tensor) -> float:
    """The number in a tensor without dimensions, which all processes may hold together."""
    from torch.distributed.tensor import DTensor

    return float(x.full_tensor() if isinstance(x, DTensor) else x)
