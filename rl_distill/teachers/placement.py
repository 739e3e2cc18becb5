"""The one door to a teacher: in the student's processes, or in processes of its own, as the config says."""

from __future__ import annotations

from typing import Any

from .. import distributed
from ..config import RunConfig
from ..distributed import Bridge
from ..models.embedded import load
from . import Teacher
from .shared import make_teacher
from .split import SplitTeacher


def open_teacher(config: RunConfig, folder: str, dtype: str, tokenizer: Any, bridge: Bridge | None) -> Teacher:
    """The teacher whose weights are in `folder` (or of that hub id); `tokenizer` is the student's."""
    if bridge is not None:
        return SplitTeacher(bridge, folder, dtype, config.generation.temperature)
    model, _ = load(folder, dtype)
    return make_teacher(config, model.to(distributed.device()), tokenizer)
