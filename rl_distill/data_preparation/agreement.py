"""How far several annotators agree: Fleiss' kappa, and the share of the majority for a single row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence


def fleiss_kappa(ratings: Sequence[Sequence[Hashable]]) -> float:
    """(P - P_e) / (1 - P_e) over items of one number of ratings each (Fleiss 1971). At most 1; 0 is chance.

        P   = mean over items of sum_c n_c (n_c - 1) / (n (n - 1))
        P_e = sum over categories of (share of all ratings)^2

    NaN of no item, and where every rating is the same (chance alone would agree). ValueError where items have
    different numbers of ratings, or fewer than two.
    """
    sizes = {len(item) for item in ratings}
    if not ratings:
        return math.nan
    if len(sizes) != 1 or (n := sizes.pop()) < 2:
        raise ValueError("every item needs the same number of ratings, at least two")
    counts = [Counter(item) for item in ratings]
    agreed = sum(sum(c * (c - 1) for c in item.values()) / (n * (n - 1)) for item in counts) / len(counts)
    total: Counter[Hashable] = sum(counts, Counter())
    chance = sum((c / (n * len(counts))) ** 2 for c in total.values())
    return math.nan if chance == 1 else (agreed - chance) / (1 - chance)


def majority_share(labels: Sequence[Hashable]) -> float:
    """Share of the most frequent label."""
    return max(Counter(labels).values()) / len(labels)
