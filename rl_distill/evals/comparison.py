"""One model against others on the same problems: difference, gap recovered, retention, compression, speed-up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..generation.sampling import Sampling
from . import statistics
from .engine import Student, complete
from .records import Record, by_problem, plain

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def compare_records(metric: str, first: Sequence[Record], second: Sequence[Record], seed: int = 0) -> dict[str, Any]:
    """first - second on the problems that both have graded; `retention` is first / second."""
    ours, theirs = common_scores(metric, first, second)
    found = statistics.paired_bootstrap(ours, theirs, seed)
    return {
        "difference": plain(found.difference),
        "ci95": [plain(found.low), plain(found.high)],
        "p_value": plain(found.p_value),
        "n": found.n,
        "better_on": found.first_only,
        "worse_on": found.second_only,
        "retention": sum(ours) / sum(theirs) if sum(theirs) else None,
        "retention_ci95": statistics.bootstrap_ratio(ours, theirs, seed),
    }


def compare_gap(
    metric: str, model: Sequence[Record], baseline: Sequence[Record], teacher: Sequence[Record], seed: int = 0
) -> dict[str, Any]:
    """The gap recovered and its 95 % interval, on the problems that all three have graded."""
    ours, before, best = common_scores(metric, model, baseline, teacher)
    n = len(ours)
    value = gap_recovered(sum(ours) / n, sum(before) / n, sum(best) / n) if n else None
    return {"value": value, "ci95": statistics.bootstrap_gap(ours, before, best, seed), "n": n}


def common_scores(metric: str, *models: Sequence[Record]) -> list[list[float]]:
    """Per model, its scores on the problems that every one of them has graded, in one order."""
    found = [by_problem(records, metric) for records in models]
    indices = [index for index in found[0] if all(index in scores for scores in found)]
    return [[scores[index] for index in indices] for scores in found]


def gap_recovered(model: float, baseline: float, teacher: float) -> float | None:
    """(model - baseline) / (teacher - baseline); None where the baseline is no worse than the teacher."""
    return (model - baseline) / (teacher - baseline) if teacher > baseline else None


def size_of(model: PreTrainedModel) -> dict[str, int]:
    """Parameters, tied ones counted once, and the bytes they take."""
    parameters = {id(p): p for p in model.parameters()}.values()
    return {
        "parameters": sum(p.numel() for p in parameters),
        "bytes": sum(p.numel() * p.element_size() for p in parameters),
    }


def measure_speed(
    student: Student, prompt_ids: Sequence[list[int]], num_new_tokens: int, batch_size: int
) -> dict[str, float]:
    """Latency of single answers of exactly `num_new_tokens` (p50, p95 seconds) and tokens/s of batches of them.

    Answers are not allowed to end early, so that two models do the same work.
    """
    config = student.model.generation_config
    ends, config.eos_token_id = config.eos_token_id, None
    try:
        return _measure(Student(student.model, student.tokenizer, [-1]), prompt_ids, num_new_tokens, batch_size)
    finally:
        config.eos_token_id = ends


def _measure(
    endless: Student, prompt_ids: Sequence[list[int]], num_new_tokens: int, batch_size: int
) -> dict[str, float]:
    sampling = Sampling(num_new_tokens, temperature=0.0)
    complete(endless, [prompt_ids[0]], sampling)  # the first call pays for what is set up once
    seconds = []
    for ids in prompt_ids:
        start = time.perf_counter()
        complete(endless, [ids], sampling)
        seconds.append(time.perf_counter() - start)
    seconds.sort()
    batch = [prompt_ids[i % len(prompt_ids)] for i in range(batch_size)]
    start = time.perf_counter()
    num_tokens = sum(len(answer.token_ids) for answer in complete(endless, batch, sampling))
    return {
        "latency_p50_seconds": statistics.quantile(seconds, 0.5),
        "latency_p95_seconds": statistics.quantile(seconds, 0.95),
        "tokens_per_second": num_tokens / (time.perf_counter() - start),
        "num_answers": len(seconds),
        "new_tokens": num_new_tokens,
        "batch_size": batch_size,
    }


def compare_models(first: dict[str, Any], second: dict[str, Any]) -> dict[str, float]:
    """Compression (second / first) and speed-up (above 1: the first is faster) from sizes and speeds."""
    ratios = {
        "compression_parameters": second["size"]["parameters"] / first["size"]["parameters"],
        "compression_bytes": second["size"]["bytes"] / first["size"]["bytes"],
    }
    if first.get("speed") and second.get("speed"):
        for name in ("latency_p50_seconds", "latency_p95_seconds"):
            ratios["speedup_" + name.removesuffix("_seconds")] = second["speed"][name] / first["speed"][name]
        ratios["speedup_tokens_per_second"] = first["speed"]["tokens_per_second"] / second["speed"]["tokens_per_second"]
    return ratios
