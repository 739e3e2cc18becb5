"""Rows into splits: by key, so that what belongs together stays together, and evenly within each stratum."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

TRAIN = "train"


class Place(NamedTuple):
    """What a row is split by: rows of one key share a split; each stratum is divided by the same shares."""

    key: str
    stratum: str


def assign(places: Sequence[Place], shares: Mapping[str, float], seed: int) -> list[str]:
    """The split of each row: `train`, or a name of `shares`, which sum to less than 1.

    A key belongs to the stratum of its first row. Within a stratum of n keys a split gets round(n * share) of them,
    those with the lowest hash of (seed, key): a key never moves when rows of other strata come or go.
    """
    strata: dict[str, dict[str, None]] = {}
    known: set[str] = set()
    for place in places:
        if place.key not in known:
            known.add(place.key)
            strata.setdefault(place.stratum, {})[place.key] = None
    split_of: dict[str, str] = {}
    for keys in strata.values():
        order = sorted(keys, key=lambda key: _hash(seed, key))
        start = 0.0
        for name, share in shares.items():
            first, last = round(len(order) * start), round(len(order) * (start + share))
            split_of |= dict.fromkeys(order[first:last], name)
            start += share
    return [split_of.get(place.key, TRAIN) for place in places]


def _hash(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{key}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
