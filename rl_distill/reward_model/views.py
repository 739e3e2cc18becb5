"""What a row may show of the teacher, by name: its output, its readings, both or neither. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from reward_models.learned import view_of

from .settings import RewardModelRunConfig


@dataclass(frozen=True)
class View:
    """`name` is that of quality.json."""

    name: str
    with_teacher: bool
    with_readings: bool

    @property
    def words(self) -> str:
        return self.name.replace("_", " ")


def views_of(config: RewardModelRunConfig) -> list[View]:
    """Those that a model of these settings can be asked in, the fullest first."""
    settings = config.reward_model
    teacher = (True, False) if settings.teacher_texts else (False,)
    readings = (True, False) if settings.readings else (False,)
    return [View(view_of(t, r, settings.readings), t, r) for r in readings for t in teacher]
