"""What the rounds brought, as a table in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADS = ("round", "goes on from", "before", "after", "after - before", "against the best so far", "pool", "next pool")


def markdown(found: Mapping[str, Any]) -> str:
    """A row for each round, then what the result is. `found` is the content of rounds.json."""
    lines = [f"| {' | '.join(HEADS)} |", f"|{'---|' * len(HEADS)}"]
    lines += [f"| {' | '.join(cells(entry))} |" for entry in found["rounds"]]
    return "\n".join([*lines, "", summary(found)])


def cells(entry: Mapping[str, Any]) -> list[str]:
    accuracy, best = entry["accuracy"], entry["against_the_best_before"]
    return [
        str(entry["round"]),
        f"round {entry['goes_on_from']}" if entry["goes_on_from"] else "the start",
        percent(accuracy["before"]["overall"]),
        percent(accuracy["after"]["overall"]),
        change(entry["against_its_start"]),
        change(best) + (", rolled back" if entry["rolled_back"] else ""),
        percent(entry["mined_share"]),
        f"{entry['mined']['pool_rows']} rows",
    ]


def summary(found: Mapping[str, Any]) -> str:
    """Why it ended and which student it leads to."""
    done, asked = len(found["rounds"]), found["asked_for"]
    ended = f"stopped after {done} of {asked} rounds, {found['stopped']}" if found["stopped"] else f"{done} of {asked}"
    words = f"Rounds: {ended}. Accuracy on {found['held_out']} held-out problems; intervals of 95 %, paired. "
    result = f"round {found['result']}" if found["result"] else "the student before all rounds"
    return f"{words}Result: {result}, `{found['student']}`."


def percent(value: float | None) -> str:
    return "-" if value is None or value != value else f"{100 * value:.1f} %"


def change(found: Mapping[str, Any]) -> str:
    """In points, with the interval."""
    if found["difference"] is None or found["difference"] != found["difference"]:
        return "nothing graded"
    low, high = found["ci95"]
    return f"{100 * found['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
