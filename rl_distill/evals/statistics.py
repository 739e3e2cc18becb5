"""Means with their uncertainty, pass@k and the paired bootstrap: lists of floats in, numbers out.

A problem is the unit: several samples of one problem are averaged first, so that they do not count as independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
NUM_RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` problems, its standard error and a 95 % interval."""

    value: float
    n: int
    standard_error: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate:
    """The mean; Wilson's interval where every value is 0 or 1, else mean +- 1.96 standard errors. NaN of nothing."""
    n = len(values)
    if n == 0:
        return Estimate(math.nan, 0, math.nan, math.nan, math.nan)
    mean = math.fsum(values) / n
    if all(value in (0, 1) for value in values):
        low, high = wilson(mean, n)
        return Estimate(mean, n, math.sqrt(mean * (1 - mean) / n), low, high)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1) if n > 1 else 0.0
    error = math.sqrt(variance / n)
    return Estimate(mean, n, error, mean - Z95 * error, mean + Z95 * error)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share: honest near 0 and 1, where +- 1.96 standard errors is not."""
    z2 = Z95 * Z95
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, center - half), min(1.0, center + half)


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased probability that one of k samples is right (Chen et al. 2021): 1 - C(n - c, k) / C(n, k).

    ValueError where k exceeds the number of samples.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} needs at least {k} samples per problem, there are {num_samples}")
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


@dataclass(frozen=True)
class Difference:
    """How much better the first of two models is on the same problems, with a 95 % interval.

    `p_value`: two-sided, how often a resample of the problems would contradict the sign of the difference; never 0, as
    B resamples show nothing below 2 / (B + 1).
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    first_only: int
    second_only: int


def paired_bootstrap(
    first: Sequence[float], second: Sequence[float], seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> Difference:
    """Percentile bootstrap of mean(first) - mean(second) over problems, both models resampled together.

    Koehn (2004). NaN of nothing. The same seed gives the same numbers.
    """
    deltas = [a - b for a, b in zip(first, second, strict=True)]
    n = len(deltas)
    if n == 0:
        return Difference(math.nan, math.nan, math.nan, math.nan, 0, 0, 0)
    means = sorted(resampled_means([deltas], seed, num_resamples)[0])
    at_most = sum(mean <= 0 for mean in means) + 1
    at_least = sum(mean >= 0 for mean in means) + 1
    return Difference(
        difference=math.fsum(deltas) / n,
        low=quantile(means, 0.025),
        high=quantile(means, 0.975),
        p_value=min(1.0, 2 * min(at_most, at_least) / (num_resamples + 1)),
        n=n,
        first_only=sum(a > b for a, b in zip(first, second, strict=True)),
        second_only=sum(b > a for a, b in zip(first, second, strict=True)),
    )


def resampled_means(columns: Sequence[Sequence[float]], seed: int, num_resamples: int) -> list[list[float]]:
    """Per column, its mean over each resample of the rows; every column sees the same resamples."""
    values = numpy.asarray(columns, dtype=float)
    num_rows = values.shape[1]
    rng = numpy.random.default_rng(seed)
    at_once = max(1, 2_000_000 // num_rows)  # bounds memory at about 32 MB per column
    parts = []
    for start in range(0, num_resamples, at_once):
        picks = rng.integers(0, num_rows, (min(at_once, num_resamples - start), num_rows))
        parts.append([column[picks].mean(axis=1) for column in values])
    return numpy.concatenate(parts, axis=1).tolist()


Interval = tuple[float, float] | None


def bootstrap_ratio(
    top: Sequence[float], bottom: Sequence[float], seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> Interval:
    """95 % interval of mean(top) / mean(bottom) over problems; None where the bottom can be 0, or of nothing."""
    return _interval_of_ratio([top, bottom], lambda t, b: (t, b), seed, num_resamples)


def bootstrap_gap(
    model: Sequence[float],
    baseline: Sequence[float],
    teacher: Sequence[float],
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """95 % interval of (model - baseline) / (teacher - baseline); None where there may be no gap, or of nothing."""
    return _interval_of_ratio([model, baseline, teacher], lambda m, b, t: (m - b, t - b), seed, num_resamples)


def _interval_of_ratio(
    columns: Sequence[Sequence[float]],
    parts: Callable[..., tuple[float, float]],
    seed: int,
    num_resamples: int,
) -> Interval:
    if not columns[0]:
        return None
    pairs = [parts(*means) for means in zip(*resampled_means(columns, seed, num_resamples), strict=True)]
    if any(below <= 0 for _, below in pairs):
        return None
    ratios = sorted(above / below for above, below in pairs)
    return quantile(ratios, 0.025), quantile(ratios, 0.975)


def quantile(ordered: Sequence[float], q: float) -> float:
    """The q-quantile of sorted values, linear between neighbours. NaN of nothing."""
    if not ordered:
        return math.nan
    place = q * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
