"""The distillation stage of a run: what can be refused at once, the student wrapped, the trainer, the result.

It may assume a run's models, teacher and sequences. It will not load or evaluate on tasks: launch/distill.py does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import distributed
from ..config import ConfigError, DistillConfig, RunConfig, teachers_of
from ..teachers import Teacher
from ..teachers.colocated import ColocatedTeacher
from .inner_states import layer_map
from .student import DistillationStudent

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_distillation(config: RunConfig, settings: DistillConfig) -> None:
    """Raises ConfigError where the stage asks for what its teacher cannot give."""
    wants_inner = uses_inner_states(settings)
    if wants_inner and (config.teacher.placement != "colocated" or config.teacher.sharded or config.teachers):
        raise ConfigError(
            "distill.inner reads layers inside the teacher, which must then be one whole model in the student's "
            "processes: set teacher.placement to colocated, without teacher.sharded and teachers"
        )
    if any(teacher.placement == "remote" for teacher in teachers_of(config)):
        _check_remote(config, settings)
    _check_schedules(settings)
    if settings.cache != "none":
        _check_cache(config, settings)
    if settings.guided is not None:
        _check_guided(config, settings)
    if max(settings.teacher_mix.start, settings.teacher_mix.end or 0.0) > 0:
        _check_mix(config, settings)
    if settings.optimizer == "muon" and settings.weight_decay:
        raise ConfigError("distill.weight_decay is AdamW's: set distill.optimizer to adamw, or leave it 0")
    if is_supervised(settings) and (settings.on_policy.start or settings.on_policy.end):
        raise ConfigError(
            "distill.on_policy: the student's own samples carry no cross entropy, and alpha 1 leaves nothing else to "
            "learn from them: set distill.on_policy.start to 0, or lower distill.alpha.start"
        )


def _check_remote(config: RunConfig, settings: DistillConfig) -> None:
    """A server sends log-probabilities of its likeliest ids at temperature 1, and nothing else."""
    if is_supervised(settings):
        return
    if config.teachers and config.teacher.selection == "ensemble":
        raise ConfigError("distill: an ensemble with a server has no distribution to learn from; take one teacher")
    if settings.temperature.start != 1 or settings.temperature.end not in (None, 1):
        raise ConfigError("distill.temperature: a remote teacher scores at temperature 1; set start to 1, end null")
    if settings.interpolation.start != 1 or settings.interpolation.end not in (None, 1):
        raise ConfigError("distill.interpolation needs the teacher's whole distribution, which no server sends")


def _check_guided(config: RunConfig, settings: DistillConfig) -> None:
    """Gradients are measured inside the model."""
    if is_supervised(settings):
        raise ConfigError("distill.guided has nothing to weigh at alpha 1 without inner states: leave it out")
    if distributed.is_deepspeed() or distributed.is_fsdp():
        raise ConfigError("distill.guided measures gradients of whole weights: launch without DeepSpeed and FSDP")
    if config.student.gradient_checkpointing:
        raise ConfigError(
            "distill.guided measures gradients inside the model: leave student.gradient_checkpointing out"
        )


def _check_mix(config: RunConfig, settings: DistillConfig) -> None:
    """Teacher and student write each token together."""
    if not max(settings.on_policy.start, settings.on_policy.end or 0.0):
        raise ConfigError("distill.teacher_mix is about the student's samples: set distill.on_policy.start above 0")
    teacher = config.teacher
    if teacher.placement != "colocated" or teacher.sharded or config.teachers or teacher.prompt_template is not None:
        raise ConfigError(
            "distill.teacher_mix draws each token from teacher and student, which takes one whole teacher in the "
            "student's processes under the student's prompts: set teacher.placement to colocated, or leave it out"
        )


def _check_cache(config: RunConfig, settings: DistillConfig) -> None:
    """What is on disk are distributions at one temperature along texts that do not change."""
    start = f"distill.cache: {settings.cache} "
    temperature = settings.temperature
    if is_supervised(settings):
        raise ConfigError(start + "has nothing to keep at alpha 1: leave it out")
    if settings.on_policy.start or settings.on_policy.end:
        raise ConfigError(start + "holds no texts that the student samples: set distill.on_policy.start to 0")
    if temperature.kind != "constant" and temperature.end not in (None, temperature.start):
        raise ConfigError(start + "is made at one temperature: set distill.temperature.end to null")
    if uses_inner_states(settings) or min(settings.interpolation.start, settings.interpolation.end or 1.0) < 1:
        raise ConfigError(start + "holds neither inner states nor whole distributions: leave inner, interpolation out")
    if config.teachers:
        raise ConfigError(start + "is for one teacher: leave `teachers` out")
    if settings.cache == "sampled" and settings.divergence != "forward_kl":
        raise ConfigError(start + "estimates the forward KL alone: set distill.divergence to forward_kl")
    if settings.cache == "sampled" and config.teacher.placement == "remote":
        raise ConfigError(start + "draws from the whole distribution, which no server sends: set it to top_k")


def _check_schedules(settings: DistillConfig) -> None:
    """Shares lie between 0 and 1, and a temperature is above 0."""
    for name in ("alpha", "on_policy", "teacher_mix", "interpolation"):
        schedule = getattr(settings, name)
        if max(schedule.start, schedule.end or 0.0) > 1:
            raise ConfigError(f"distill.{name} is a share: start and end lie between 0 and 1")
    if settings.temperature.start == 0 or settings.temperature.end == 0:
        raise ConfigError("distill.temperature must stay above 0")


def is_supervised(settings: DistillConfig) -> bool:
    """True where the stage is cross entropy alone, and needs no teacher while it trains."""
    return settings.alpha.start == 1 and settings.alpha.end in (None, 1) and not uses_inner_states(settings)


def uses_inner_states(settings: DistillConfig) -> bool:
    """True where the stage reads hidden states, attention maps or embeddings of the teacher."""
    inner = settings.inner
    return inner.hidden_map is not None or inner.attention_map is not None or inner.embedding_coef > 0


def wrap_student(
    settings: DistillConfig, policy: PreTrainedModel, teacher: Teacher | None, num_tokens_vocab: int
) -> DistillationStudent:
    """The student with what its inner losses need. Raises ConfigError on a layer that does not exist."""
    inner = settings.inner
    hidden_map: dict[int, int] = {}
    attention_map: dict[int, int] = {}
    width = 0
    if uses_inner_states(settings):
        assert isinstance(teacher, ColocatedTeacher), "check_distillation refuses the others"
        theirs = teacher.model.config.get_text_config()
        for who, model in (("student", policy), ("teacher", teacher.model)):
            if not hasattr(model.get_decoder(), "layers"):
                raise ConfigError(f"distill.inner: the {who} ({model.config.model_type}) has no list of layers to read")
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
