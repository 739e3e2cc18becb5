"""The three ways to bring one function's scores to a common scale before they are weighted: none, running, rank.

It may assume that `pooled` holds the scores of all processes, None where unscored; sums are exactly rounded (fsum), so
that the result does not depend on how the batch was split. It will not touch an item without a score.
"""

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass

SMALLEST_STD = 1e-6


def mean_and_std(values: list[float]) -> tuple[float, float]:
    """Mean and population standard deviation (divides by n); (nan, nan) of nothing."""
    if not values:
        return math.nan, math.nan
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))


@dataclass
class RunningMoments:
    """Mean and spread of every score seen so far in the run (Chan et al. 1979, parallel update of count, mean, M2)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared distances from the mean

    def update(self, values: list[float]) -> None:
        if not values:
            return
        batch_mean = math.fsum(values) / len(values)
        batch_squares = math.fsum((v - batch_mean) ** 2 for v in values)
        total = self.count + len(values)
        shift = batch_mean - self.mean
        self.mean += shift * len(values) / total
        self.squares += batch_squares + shift * shift * self.count * len(values) / total
        self.count = total

    def standardize(self, value: float) -> float:
        """Distance from the mean in population standard deviations; 0 while all scores have been equal."""
        std = math.sqrt(self.squares / self.count) if self.count else 0.0
        return (value - self.mean) / std if std > SMALLEST_STD else 0.0


def rank(scores: list[float | None], pooled: list[float | None]) -> list[float | None]:
    """Each score's place among `pooled`, in -1..1: 0 is the middle, ties share their mean place."""
    order = sorted(v for v in pooled if v is not None)
    return [
        None if score is None else (bisect_left(order, score) + bisect_right(order, score)) / len(order) - 1.0
        for score in scores
    ]
