"""Learning rates over a run, as factors of their peak."""

import math


def warmup_cosine(update: int, *, begin: int, warmup: int, total: int, floor: float) -> float:
    """The factor at an optimizer step (from 0): 0 before `begin`, linear from there to 1 over `warmup` steps, then half
    a cosine down to `floor` at `total`.
    """
    if update < begin:
        return 0.0
    if update < begin + warmup:
        return (update - begin) / warmup
    progress = (update - begin - warmup) / max(1, total - begin - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
