"""How far an artefact is from the float model: token ids, logits, first choices, KL, greedy answers, speed.

Assumes that both fit into memory. Both are given the float model's token ids. Shapes: T tokens of a row, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..evals.statistics import quantile
from ..progress import progress_bar
from ..students.measure import forward_kl
from .artefact import Artefact, greedy, logits

BATCH = 4
NUM_ANSWERS, NUM_NEW_TOKENS = 8, 32


@dataclass(frozen=True)
class Distance:
    """Over the tokens of the texts; KL(float || artefact) in nats."""

    num_tokens: int
    max_logit_difference: float
    mean_logit_difference: float
    top1_agreement: float
    kl_mean: float
    kl_max: float
    greedy_identical: int
    """of `num_answers` continuations of `num_new_tokens` tokens each, those equal in every token"""
    num_answers: int
    num_new_tokens: int


@dataclass(frozen=True)
class Speed:
    """Seconds of single answers and tokens per second of a batch, measured in turn with the other model's."""

    latency_p50_seconds: float
    latency_p95_seconds: float
    tokens_per_second: float


def first_changed(reference: Artefact, artefact: Artefact, texts: Sequence[str]) -> tuple[int, str | None]:
    """(number of texts with equal token ids, the first that is not equal)."""
    changed = [text for text in texts if reference.encode(text) != artefact.encode(text)]
    return len(texts) - len(changed), changed[0] if changed else None


def rows_of(reference: Artefact, texts: Sequence[str], max_tokens: int, max_length: int = 256) -> list[list[int]]:
    """Token ids of as many texts as `max_tokens` allows, at least one; empty ones are left out."""
    rows: list[list[int]] = []
    num_tokens = 0
    for text in texts:
        row = reference.encode(text)[:max_length]
        if row and (not rows or num_tokens + len(row) <= max_tokens):
            rows.append(row)
            num_tokens += len(row)
    return rows


def distance(reference: Artefact, artefact: Artefact, rows: Sequence[list[int]], pad: int) -> Distance:
    """Logits on every token of the rows, in left-padded batches of four, and greedy answers to the first rows."""
    differences, agreements, kls, largest = [0.0], 0, [0.0], 0.0
    batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    total = sum(map(len, rows))
    kl_max = 0.0
    for batch in progress_bar(batches, "comparing"):
        for ours_TV, theirs_TV in zip(logits(artefact, batch, pad), logits(reference, batch, pad), strict=True):
            off_TV = (ours_TV - theirs_TV).abs()
            kl_T = forward_kl(theirs_TV.log_softmax(-1), ours_TV.log_softmax(-1))
            largest, kl_max = max(largest, float(off_TV.max())), max(kl_max, float(kl_T.max()))
            differences.append(float(off_TV.mean(-1).sum()))
            kls.append(float(kl_T.sum()))
            agreements += int((ours_TV.argmax(-1) == theirs_TV.argmax(-1)).sum())
    prompts = prompts_of(rows)
    answers = [greedy(model, prompts, pad, NUM_NEW_TOKENS) for model in (reference, artefact)]
    same = int((answers[0] == answers[1]).all(-1).sum())
    means = sum(differences) / total, agreements / total, sum(kls) / total
    return Distance(total, largest, *means, kl_max, same, len(prompts), NUM_NEW_TOKENS)


def prompts_of(rows: Sequence[list[int]]) -> list[list[int]]:
    """The beginnings of the first rows, of different lengths."""
    return [row[: 4 + 3 * place] for place, row in enumerate(rows[:NUM_ANSWERS])]


def speeds(reference: Artefact, artefact: Artefact, rows: Sequence[list[int]], pad: int) -> tuple[Speed, Speed]:
    """(float model's, artefact's): their answers alternate, so that a busy machine slows both alike."""
    models, prompts = (reference, artefact), prompts_of(rows)
    prompts = [prompts[place % len(prompts)] for place in range(NUM_ANSWERS)]
    single: tuple[list[float], list[float]] = ([], [])
    batched: tuple[list[float], list[float]] = ([], [])
    for model in models:
        greedy(model, prompts[:1], pad, 2)  # the first call pays for what is set up once
    for prompt in progress_bar(prompts, "timing"):
        for model, seconds in zip(models, single, strict=True):
            seconds.append(_seconds(model, [prompt], pad))
    for _ in range(3):
        for model, seconds in zip(models, batched, strict=True):
            seconds.append(_seconds(model, prompts, pad))
    first, second = (_speed(one, many) for one, many in zip(single, batched, strict=True))
    return first, second


def _seconds(model: Artefact, prompts: Sequence[list[int]], pad: int) -> float:
    start = time.perf_counter()
    greedy(model, prompts, pad, NUM_NEW_TOKENS)
    return time.perf_counter() - start


def _speed(single: list[float], batched: list[float]) -> Speed:
    rate = NUM_ANSWERS * NUM_NEW_TOKENS / quantile(sorted(batched), 0.5)
    return Speed(quantile(sorted(single), 0.5), quantile(sorted(single), 0.95), rate)
