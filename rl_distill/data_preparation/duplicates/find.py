"""Exact and near duplicates: MinHash finds candidates (Broder 1997), their shingles and a guard decide.

Rows whose gold answers or tests differ are never compared, and similar texts whose numbers or relations differ are kept
(`critical.same_question`). Memory: 264 bytes a row; the texts stay on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy

from reward_models.math_gold import gold_answer

from ..texts import Row, gold_of, prompt_text, tests_of
from .critical import same_question, tokens

NUM_BANDS, ROWS_PER_BAND = 32, 4
"""A pair of Jaccard similarity s becomes a candidate with probability 1 - (1 - s^4)^32: .9998 at .7, .87 at .5."""
SHINGLE = 5
"""Characters, of `plain_text`."""
_DRAW = numpy.random.default_rng(20_000_303)
_FACTORS = _DRAW.integers(0, 2**63, NUM_BANDS * ROWS_PER_BAND, dtype=numpy.uint64) * 2 + 1
_OFFSETS = _DRAW.integers(0, 2**63, NUM_BANDS * ROWS_PER_BAND, dtype=numpy.uint64)
_POWERS = numpy.array([1_099_511_628_211**k % 2**64 for k in range(SHINGLE)], dtype=numpy.uint64)


class Print(NamedTuple):
    """What is kept of a row: hashes of its whole text, of its gold and tests, and of each band of its MinHash."""

    text: int
    gold: int
    bands: numpy.ndarray


class Prints(NamedTuple):
    """The same of many rows: arrays of 64-bit hashes, `bands` with a row for each."""

    text: numpy.ndarray
    gold: numpy.ndarray
    bands: numpy.ndarray

    @classmethod
    def of(cls, prints: Sequence[Print]) -> Prints:
        whole = [numpy.array([p[i] for p in prints], dtype=numpy.uint64) for i in (0, 1)]
        bands = numpy.array([p.bands for p in prints], dtype=numpy.uint64).reshape(-1, NUM_BANDS)
        return cls(whole[0], whole[1], bands)

    @classmethod
    def joined(cls, parts: Sequence[Prints]) -> Prints:
        return cls(*(numpy.concatenate([part[i] for part in parts]) for i in range(3)))


def fingerprint(row: Row, column: str | None = None) -> Print:
    plain = plain_text(prompt_text(row, column) or "")
    tests = tests_of(row)  # case and signs matter in programs, and one prompt with other tests is another problem
    exact = plain if tests is None else f"{prompt_text(row, column)}\n{tests}"
    gold = gold_of(row)
    answer = tests or ("" if gold is None else gold_answer(gold).replace(",", "").strip().lower())
    return Print(_hash(exact), _hash(answer), _bands(shingle_hashes(plain), _hash(answer)))


def plain_text(text: str) -> str:
    """Its tokens with single spaces: case, punctuation and the way numbers are written are gone."""
    return " ".join(tokens(text))


def shingle_hashes(plain: str) -> numpy.ndarray:
    """Distinct 64-bit hashes of the character 5-grams; of the whole text where it is shorter."""
    codes = numpy.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype=numpy.uint32).astype(numpy.uint64) + 1
    if len(codes) < SHINGLE:
        codes = numpy.pad(codes, (0, SHINGLE - len(codes)))
    windows = numpy.lib.stride_tricks.sliding_window_view(codes, SHINGLE)
    return numpy.unique(_mixed((windows * _POWERS).sum(axis=1, dtype=numpy.uint64)))


def _mixed(values: numpy.ndarray) -> numpy.ndarray:
    """The finaliser of splitmix64: neighbouring numbers become unrelated ones."""
    values = (values ^ (values >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return values ^ (values >> numpy.uint64(31))


def _bands(hashes: numpy.ndarray, salt: int) -> numpy.ndarray:
    """A hash for each band of the MinHash; rows with another salt share none."""
    lowest = numpy.full(len(_FACTORS), 2**64 - 1, dtype=numpy.uint64)
    for start in range(0, len(hashes), 4096):  # bounds memory for long texts
        part = hashes[start : start + 4096, None] * _FACTORS + _OFFSETS
        lowest = numpy.minimum(lowest, _mixed(part).min(axis=0))
    rows = lowest.reshape(NUM_BANDS, ROWS_PER_BAND)
    weights = numpy.array([3, 5, 7, 11], dtype=numpy.uint64) ** numpy.uint64(9)
    return _mixed((rows * weights).sum(axis=1, dtype=numpy.uint64) ^ numpy.uint64(salt))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def jaccard(first: str, second: str) -> float:
    """Of the shingles of two plain texts, 1 where they are the same."""
    a, b = shingle_hashes(first), shingle_hashes(second)
    shared = len(numpy.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


class Found(NamedTuple):
    """Why a row goes (`duplicate`, `near_duplicate`, `conflicting_gold`) and the row it repeats or contradicts."""

    reason: str
    of: int


def find_duplicates(
    prints: Prints, read: Callable[[int], Row], threshold: float | None, column: str | None = None
) -> dict[int, Found]:
    """By index of the row. The first of each group stays; where one text has two golds, none of its rows does.

    A row is compared with rows that stay, so that no chain of small changes joins what is far apart. `threshold` None
    looks for exact ones only. `read` gives a row by its index.
    """
    found = _exact(prints)
    tables = [] if threshold is None else [_collisions(prints.bands[:, band]) for band in range(NUM_BANDS)]
    for index in sorted(set().union(*tables)):
        if index in found:
            continue
        candidates = sorted({other for table in tables for other in table.get(index, ()) if other not in found})
        if not candidates:
            continue
        row = read(index)
        own = prompt_text(row, column) or ""
        for other in candidates:
            theirs = prompt_text(read(other), column) or ""
            if jaccard(plain_text(own), plain_text(theirs)) >= (threshold or 1) and _is_same(row, own, theirs):
                found[index] = Found("near_duplicate", other)
                break
    return found


def _is_same(row: Row, own: str, theirs: str) -> bool:
    """Similar programs with the same tests are one problem; similar texts only if nothing critical differs."""
    return tests_of(row) is not None or same_question(own, theirs)


def _exact(prints: Prints) -> dict[int, Found]:
    first: dict[int, int] = {}
    golds: dict[int, set[int]] = {}
    pairs = list(zip(prints.text.tolist(), prints.gold.tolist(), strict=True))
    for index, (text, gold) in enumerate(pairs):
        first.setdefault(text, index)
        golds.setdefault(text, set()).add(gold)
    found = {}
    for index, (text, _) in enumerate(pairs):
        if len(golds[text]) > 1:
            found[index] = Found("conflicting_gold", first[text])
        elif first[text] != index:
            found[index] = Found("duplicate", first[text])
    return found


def _collisions(values: numpy.ndarray) -> dict[int, list[int]]:
    """Index -> earlier indices with the same hash, for those that have any."""
    order = numpy.argsort(values, kind="stable")
    same = numpy.flatnonzero(values[order][1:] == values[order][:-1])
    groups: dict[int, list[int]] = {}
    for place in same:
        groups.setdefault(int(values[order[place]]), [int(order[place])]).append(int(order[place + 1]))
    return {index: group[:i] for group in groups.values() for i, index in enumerate(group) if i}
