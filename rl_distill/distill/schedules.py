"""Numbers that change over a stage: temperature, the weight of the task loss, the share of on-policy samples.

A schedule is a pure function of the share of training done, so a resumed run needs no state to repeat it.
"""

from __future__ import annotations

import math

from ..config import ScheduleConfig


def value_at(schedule: ScheduleConfig, progress: float) -> float:
    """The schedule's value after the share `progress` of training (0 to 1, values outside are clamped).

    linear: start + progress (end - start). cosine: the same along half a cosine, slow at both ends. step: `start`
    before the share `step_at`, `end` from there on. constant: `start`; `end` None means `start`, whatever the kind.
    """
    progress = min(max(progress, 0.0), 1.0)
    end = schedule.start if schedule.end is None else schedule.end
    share = {
        "constant": 0.0,
        "linear": progress,
        "cosine": (1 - math.cos(math.pi * progress)) / 2,
        "step": float(progress >= schedule.step_at),
    }[schedule.kind]
    return schedule.start + share * (end - schedule.start)
