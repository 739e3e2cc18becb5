"""Opens a teacher in the placement the config asks for: colocated, dedicated or remote."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..config import RunConfig, TeacherConfig, teachers_of
from ..distributed import TeacherLink
from ..models.loading import load_config_of
from ..models.tokenizers import num_token_ids
from . import Teacher
from .curriculum import TeacherCurriculum
from .dedicated import DedicatedTeacher
from .loading import load_teacher
from .multi_teacher import EnsembleTeacher, RoutedTeacher
from .remote import RemoteTeacher

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def open_teachers(config: RunConfig, tokenizer: PreTrainedTokenizerBase, link: TeacherLink | None) -> Teacher:
    """The teacher of the config, or its several teachers as one; `tokenizer` is the student's."""
    members = teachers_of(config)
    openers = [
        partial(open_teacher, replace(config, teacher=member), str(member.model), member.dtype, tokenizer, link)
        for member in members
    ]
    if not config.teachers:
        return openers[0]()
    if config.teacher.selection == "curriculum":
        widths = [width(member) for member in members]
        return TeacherCurriculum(openers, widths, switch_gap=config.teacher.switch_gap)
    opened = [opener() for opener in openers]
    if config.teacher.selection == "ensemble":
        return EnsembleTeacher(opened, num_token_ids(tokenizer))
    return RoutedTeacher(opened, [member.tasks for member in members])


def open_teacher(
    config: RunConfig, folder: str, dtype: str, tokenizer: PreTrainedTokenizerBase, link: TeacherLink | None
) -> Teacher:
    """One teacher whose weights are in `folder` (or of that hub id); `tokenizer` is the student's."""
    settings = config.teacher
    if settings.placement == "remote":
        return RemoteTeacher(settings.server)
    if settings.placement == "dedicated" and link is not None:
        names = ("autocast", "micro_batch_size", "quantization", "sharded")
        changes = {"dtype": dtype} | {name: getattr(settings, name) for name in names}
        return DedicatedTeacher(link, folder, changes, [tokenizer.eos_token_id])
    return load_teacher(config, folder, dtype, tokenizer)


def width(settings: TeacherConfig) -> int:
    """The hidden size of a teacher that is not open; 0 behind a server, which sends no hidden states."""
    if settings.placement == "remote":
        return 0
    return load_config_of(str(settings.model), who="teacher").get_text_config().hidden_size
