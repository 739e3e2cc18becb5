"""The teacher's weights into this process: whole, or its share of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import distributed
from ..config import ConfigError, RunConfig
from ..models.loading import load
from .colocated import ColocatedTeacher, make_teacher
from .zero3_sharded import Zero3ShardedTeacher

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_teacher(config: RunConfig, folder: str, dtype: str, tokenizer: PreTrainedTokenizerBase) -> ColocatedTeacher:
    """The teacher of `folder` (or hub id) on this process's device, sharded where config.teacher asks for it.

    Raises ConfigError where there is no other process to share it with.
    """
    if config.teacher.sharded and distributed.world_size() == 1:
        raise ConfigError("teacher.sharded shares the weights out over processes, and there is one: launch several")
    model, _ = load(folder, dtype, config.teacher.quantization, who="teacher")
    if config.teacher.sharded:
        return make_teacher(config, model, tokenizer, Zero3ShardedTeacher)
    if config.teacher.quantization is None:  # a quantized model is on its device and may not be moved
        model = model.to(distributed.device())
    return make_teacher(config, model, tokenizer)
