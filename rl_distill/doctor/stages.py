"""What the stages before PPO need beside what a run needs anyway: memory of inner states and guidance, disk of a cache.

An estimate from shapes and settings alone, for rows as long as they may be; nothing is loaded.
"""

from __future__ import annotations

from typing import Any

from ..config import DistillConfig, RunConfig
from ..distill.inner_states import layer_map
from ..distill.teacher_cache import bytes_per_token
from .memory import GIB

FLOAT = 4
ARRAYS_OF_MAPS = 5
"""Of a map's size, alive at once: the student's scores, probabilities, their logarithm and gradient; the teacher's."""


def stage_bytes(settings: DistillConfig, student: Any, teacher: Any, prompt: int, completion: int) -> dict[str, float]:
    """Bytes on a student's GPU by option, of one micro-batch; `student`, `teacher`: Hugging Face configs."""
    student, teacher = student.get_text_config(), teacher.get_text_config()
    rows, length = settings.micro_batch_size, prompt + completion
    hidden, attention = (
        0 if spec is None else len(layer_map(spec, student.num_hidden_layers, teacher.num_hidden_layers))
        for spec in (settings.inner.hidden_map, settings.inner.attention_map)
    )
    heads = max(student.num_attention_heads, teacher.num_attention_heads)
    found = {
        "hidden states": hidden * rows * length * FLOAT * 3 * teacher.hidden_size,
        "attention maps": attention * rows * heads * length**2 * FLOAT * ARRAYS_OF_MAPS,
        "guided weights": 0.0,
        "cached targets": 0.0,
    }
    if settings.guided is not None:
        found["guided weights"] = 2 * FLOAT * rows * length * student.hidden_size * (1 + hidden + attention)
    if settings.cache != "none":
        found["cached targets"] = rows * completion * settings.top_k * (8 + 2 * FLOAT)
    return {name: float(size) for name, size in found.items() if size}


def cache_disk_bytes(settings: DistillConfig, completion: int, num_vocab: int) -> float:
    """The most that the teacher's log-probabilities take on the disk: every text as long as it may be."""
    if settings.cache == "none":
        return 0.0
    num_ids = min(settings.top_k, num_vocab) if settings.cache == "top_k" else settings.top_k
    return float(settings.num_prompts * completion * bytes_per_token(settings.cache, num_ids))


def stage_words(config: RunConfig, name: str, settings: DistillConfig, student: Any, teacher: Any) -> str:
    """A stage's needs in words; empty where it has none."""
    prompt, completion = config.data.max_prompt_length or 512, config.generation.max_completion_length
    parts = stage_bytes(settings, student, teacher, prompt, completion)
    words = [f"{part} {size / GIB:.2f} GiB" for part, size in parts.items()]
    disk = cache_disk_bytes(settings, completion, teacher.get_text_config().vocab_size)
    words += [f"up to {disk / GIB:.2f} GiB on disk for the teacher's log-probabilities"] if disk else []
    return f"{name}, beside the models: {', '.join(words)}" if words else ""
