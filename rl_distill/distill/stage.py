"""The distillation stage of a run: what can be refused at once, the student wrapped, the trainer, the result.

It may assume a run's models, teacher and sequences. It will not load or evaluate on tasks: launch/distill.py does.
"""

from __future__ import annotations

from typing import Any

from ..config import ConfigError, DistillConfig, RunConfig
from ..teachers import Teacher
from ..teachers.colocated import ColocatedTeacher
from .inner_states import layer_map
from .student import DistillationStudent


def check_distillation(config: RunConfig, settings: DistillConfig) -> None:
    """Raises ConfigError where the stage asks for what its teacher cannot give."""
    wants_inner = uses_inner_states(settings)
    if wants_inner and (config.teacher.placement != "colocated" or config.teacher.sharded or config.teachers):
        raise ConfigError(
            "distill.inner reads layers inside the teacher, which must then be one whole model in the student's "
            "processes: set teacher.placement to colocated, without teacher.sharded and teachers"
        )
    if config.teacher.placement == "remote":
        end = settings.temperature.end
        if settings.temperature.start != 1 or end not in (None, 1):
            raise ConfigError("distill.temperature: a remote teacher scores at temperature 1; set start to 1, end null")
        if settings.interpolation.start != 1:
            raise ConfigError("distill.interpolation needs the teacher's whole distribution, which no server sends")


def is_supervised(settings: DistillConfig) -> bool:
    """True where the stage is cross entropy alone, and needs no teacher while it trains."""
    return settings.alpha.start == 1 and settings.alpha.end in (None, 1) and not uses_inner_states(settings)


def uses_inner_states(settings: DistillConfig) -> bool:
    """True where the stage reads hidden states, attention maps or embeddings of the teacher."""
    inner = settings.inner
    return inner.hidden_map is not None or inner.attention_map is not None or inner.embedding_coef > 0


def wrap_student(
    settings: DistillConfig, policy: Any, teacher: Teacher | None, num_tokens_vocab: int
) -> DistillationStudent:
    """The student with what its inner losses need. Raises ConfigError on a layer that does not exist."""
    inner = settings.inner
    hidden_map: dict[int, int] = {}
    attention_map: dict[int, int] = {}
    width = 0
    if uses_inner_states(settings):
        assert isinstance(teacher, ColocatedTeacher), "check_distillation refuses the others"
        theirs = teacher.model.config.get_text_config()
        depths = policy.config.get_text_config().num_hidden_layers, theirs.num_hidden_layers
        width = theirs.hidden_size
        try:
            hidden_map = {} if inner.hidden_map is None else layer_map(inner.hidden_map, *depths)
            attention_map = {} if inner.attention_map is None else layer_map(inner.attention_map, *depths)
        except ValueError as error:
            raise ConfigError(f"distill.inner: {error}") from error
    return DistillationStudent(
        policy,
        hidden_map=hidden_map,
        attention_map=attention_map,
        hidden_loss=inner.hidden_loss,
        embeddings=inner.embedding_coef > 0,
        teacher_width=width,
        num_tokens_vocab=num_tokens_vocab,
    )
