"""A test of two success rates that may be looked at after every observation: an e-process for two Bernoulli streams.

Turner, Ly & Gruenwald, "Generic E-variables for exact sequential k-sample tests that allow for optional stopping",
arXiv:2106.02693: observations are taken in blocks of fixed sizes; the likelihood ratio of a block under (p_a, p_b)
against their weighted mean p_0 in both streams has expectation at most 1 under every p_a = p_b. Products of such
factors, with parameters fixed by earlier blocks, and averages of these products over several gaps are e-processes; by
Ville's inequality one ever reaches 1 / alpha with probability at most alpha. Imports numpy alone.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

GAPS = (0.03, 0.06, 0.1, 0.2, 0.4)
"""How much worse the second stream may be: the evidence is the mean over these."""
LOWEST_RATE = 0.01
MOST_WAITING = 100_000


def block_log_factors(sum_a: Any, sum_b: Any, rate: Any, size_a: int, size_b: int) -> np.ndarray:
    """(..., gaps) logarithms of a block's factors, positive where the second stream does worse than the first.

    sum_a, sum_b: successes among the block's size_a and size_b observations. rate: the success rate of both streams
    together in earlier blocks.
    """
    sum_a, sum_b, rate = (np.asarray(x, dtype=float)[..., None] for x in (sum_a, sum_b, rate))
    total, gaps = size_a + size_b, np.asarray(GAPS)
    p_a = np.clip(rate + gaps * size_b / total, LOWEST_RATE, 1 - LOWEST_RATE)
    p_b = np.clip(rate - gaps * size_a / total, LOWEST_RATE, 1 - LOWEST_RATE)
    p_0 = (size_a * p_a + size_b * p_b) / total
    of_a = sum_a * np.log(p_a / p_0) + (size_a - sum_a) * np.log((1 - p_a) / (1 - p_0))
    of_b = sum_b * np.log(p_b / p_0) + (size_b - sum_b) * np.log((1 - p_b) / (1 - p_0))
    return of_a + of_b


def log_evidence(sums_a: np.ndarray, sums_b: np.ndarray, size_a: int = 1, size_b: int = 1) -> np.ndarray:
    """(..., N) logarithm of the e-process after each of N blocks, from their numbers of successes."""
    both = np.cumsum(sums_a + sums_b, axis=-1)
    before = np.concatenate([np.zeros_like(both[..., :1]), both[..., :-1]], axis=-1)
    seen = np.arange(sums_a.shape[-1]) * (size_a + size_b)
    factors = block_log_factors(sums_a, sums_b, (before + 1) / (seen + 2), size_a, size_b)
    return _log_mean(np.cumsum(factors, axis=-2))


def _log_mean(logs: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(logs, axis=-1) - math.log(logs.shape[-1])


class SequentialTest:
    """Is the variant worse than the control? `alarm` stays once the evidence has reached 1 / alpha."""

    def __init__(self, alpha: float = 0.05, size_control: int = 1, size_variant: int = 1) -> None:
        self.alpha, self.sizes = alpha, (size_control, size_variant)
        self.waiting: tuple[deque[int], deque[int]] = (deque(maxlen=MOST_WAITING), deque(maxlen=MOST_WAITING))
        self.logs = np.zeros(len(GAPS))
        self.num_seen = self.num_successes = 0
        self.alarm = False

    @classmethod
    def for_shares(cls, alpha: float, control: float, variant: float) -> SequentialTest:
        """Blocks as large as the shares of the traffic ask for, at most 20 to 1."""
        ratio = control / variant
        if ratio >= 1:
            return cls(alpha, min(20, round(ratio)), 1)
        return cls(alpha, 1, min(20, round(1 / ratio)))

    @property
    def log_evidence(self) -> float:
        return float(_log_mean(self.logs))

    def observe(self, is_variant: bool, success: bool) -> None:
        """Counts one outcome; outcomes wait until both streams have filled a block."""
        self.waiting[is_variant].append(int(success))
        while all(len(stream) >= size for stream, size in zip(self.waiting, self.sizes, strict=True)):
            sum_a, sum_b = (sum(s.popleft() for _ in range(n)) for s, n in zip(self.waiting, self.sizes, strict=True))
            rate = (self.num_successes + 1) / (self.num_seen + 2)
            self.logs = self.logs + block_log_factors(sum_a, sum_b, rate, *self.sizes)
            self.num_seen += sum(self.sizes)
            self.num_successes += sum_a + sum_b
            self.alarm = self.alarm or self.log_evidence >= -math.log(self.alpha)
