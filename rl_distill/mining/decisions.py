"""Whether a round made the student better, where the next one goes on from, and when to stop.

Pure functions over the graded answers to one held-out test, round 0 being the student before all rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..evals import statistics

Grades = Sequence[float | None]
"""Of the held-out problems in one order; None where an answer could not be graded."""


def compared(first: Grades, second: Grades, seed: int = 0) -> statistics.Difference:
    """first - second on the problems that both have graded, with the paired bootstrap's 95 % interval."""
    both = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    return statistics.paired_bootstrap([a for a, _ in both], [b for _, b in both], seed)


def accuracy(grades: Grades) -> float | None:
    known = [grade for grade in grades if grade is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Standing:
    """After some rounds. `best`: the round with the highest accuracy. `current`: the round whose student goes on, and
    is the result if nothing follows; `best` where the last round fell behind it for certain. `worse_in_a_row`: rounds
    below the best since it was reached."""

    best: int = 0
    current: int = 0
    worse_in_a_row: int = 0
    rolled_back: bool = False

    def stops(self, patience: int) -> bool:
        return self.worse_in_a_row >= patience


def after_round(before: Standing, number: int, grades: Mapping[int, Grades]) -> Standing:
    """The standing after round `number`, whose grades are among `grades`, those of the best round so far too.

    The round is compared with the best, not with its predecessor: small losses add up and are noticed. It is rolled
    back where the whole interval of the difference lies below 0.
    """
    found = compared(grades[number], grades[before.best])
    if found.difference > 0:
        return Standing(best=number, current=number)
    if not found.difference < 0:  # equal, or nothing was graded
        return Standing(before.best, number, 0)
    rolled_back = found.high < 0
    return Standing(before.best, before.best if rolled_back else number, before.worse_in_a_row + 1, rolled_back)


def standings(grades: Mapping[int, Grades]) -> list[Standing]:
    """After each round: element k is the standing after round k, element 0 the start."""
    found = [Standing()]
    for number in range(1, len(grades)):
        found.append(after_round(found[-1], number, grades))
    return found


def pool_share(share: float, max_repeats: float, pool_rows: int, num_prompts: int) -> float:
    """The part of a round's `num_prompts` that the pool gives: `share`, or less where a row would come more than
    `max_repeats` times; 0 without a pool."""
    return min(share, max_repeats * pool_rows / num_prompts)


def with_pool(base: Sequence[Mapping[str, Any]], pool: str, task: str, share: float) -> list[dict[str, Any]]:
    """Entries of data.mixture: the pool with its share, then the others, whose shares keep their proportions.

    The pool stands first, as a prompt that two entries have belongs to the first of them.
    """
    total = sum(entry["share"] for entry in base)
    others = [dict(entry) | {"share": (1 - share) * entry["share"] / total} for entry in base]
    return [{"train": pool, "task": task, "name": "mined", "share": share}, *others] if share > 0 else others
