"""The one door to a teacher, wherever the config puts it: the student's processes, its own, or behind a server."""

from __future__ import annotations

from typing import Any

from .. import distributed
from ..config import RunConfig
from ..distributed import Bridge
from ..models.embedded import load
from . import Teacher
from .served import ServedTeacher
from .shared import make_teacher
from .split import SplitTeacher


def open_teacher(config: RunConfig, folder: str, dtype: str, tokenizer: Any, bridge: Bridge | None) -> Teacher:
    """The teacher whose weights are in `folder` (or of that hub id); `tokenizer` is the student's."""
    if config.teacher.placement == "server":
        return ServedTeacher(config.teacher.server)
    if bridge is not None:
        return SplitTeacher(bridge, folder, dtype, config.generation.temperature)
    model, _ = load(folder, dtype)
    return make_teacher(config, model.to(distributed.device()), tokenizer)
