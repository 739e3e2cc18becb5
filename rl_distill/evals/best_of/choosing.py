"""Which sample each way of answering takes, and how far choosing by a reward model is ahead of the others.

It may assume records of the greedy answers, and of n samples of the same problems with the model's value of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..comparison import compare_records
from ..records import Record, graded_samples, summarize_metric


def chosen(records: Sequence[Record], values: Sequence[float | None]) -> list[Record]:
    """Per problem the sample of the highest value, the first of equals; a value of None is below all others."""
    best: dict[int, tuple[float, Record]] = {}
    for record, value in zip(records, values, strict=True):
        rank = float("-inf") if value is None else value
        if record["index"] not in best or rank > best[record["index"]][0]:
            best[record["index"]] = rank, record
    return [record for _, record in best.values()]


def majority(records: Sequence[Record]) -> list[Record]:
    """Per problem a sample with the most frequent extracted answer, the first of equals; the first sample where no
    answer could be extracted (programs). Wang et al. 2022, "Self-Consistency".
    """
    by_problem: dict[int, list[Record]] = {}
    for record in records:
        by_problem.setdefault(record["index"], []).append(record)
    picked = []
    for samples in by_problem.values():
        counts = Counter(record["extracted"] for record in samples if record["extracted"] is not None)
        answer = counts.most_common(1)[0][0] if counts else samples[0]["extracted"]
        picked.append(next(record for record in samples if record["extracted"] == answer))
    return picked


def compare(
    metric: str, greedy: Sequence[Record], samples: Sequence[Record], values: Sequence[float | None], seed: int
) -> dict[str, Any]:
    """The headline metric of every way to answer, and how far choosing by the model is ahead of the others, paired."""
    ways = {"best_of": chosen(samples, values), "greedy": greedy, "majority": majority(samples), "random": samples}
    anyone = [max(scores) for scores in graded_samples(samples, metric).values()]
    return {
        "ways": {name: summarize_metric(metric, records) for name, records in ways.items()},
        "any_right": sum(anyone) / len(anyone) if anyone else None,
        "best_of_minus": {
            name: compare_records(metric, ways["best_of"], records, seed)
            for name, records in ways.items()
            if name != "best_of"
        },
        "not_scored": sum(value is None for value in values),
    }


def table(entries: dict[str, dict[str, Any]]) -> str:
    """By task, in Markdown: percent of problems, and what choosing by the model adds."""
    lines = ["| task | answered by | value | best of n minus it | 95 % interval |", "|---|---|---|---|---|"]
    for task, found in entries.items():
        for name, summary in found["ways"].items():
            value = "-" if summary["value"] is None else f"{100 * summary['value']:.1f}"
            lead, interval = "", ""
            if name != "best_of" and found["best_of_minus"][name]["difference"] is not None:
                difference = found["best_of_minus"][name]
                lead = f"{100 * difference['difference']:+.1f}"
                interval = " to ".join(f"{100 * end:+.1f}" for end in difference["ci95"])
            lines.append(f"| {task} | {name.replace('_', ' ')} | {value} | {lead} | {interval} |")
        if found["any_right"] is not None:
            lines.append(f"| {task} | any of them right | {100 * found['any_right']:.1f} | | |")
    return "\n".join(lines)
