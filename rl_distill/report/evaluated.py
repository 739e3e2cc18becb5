"""The page of an evaluation (launch/eval.py): every model on every task with intervals, and the comparisons."""

from __future__ import annotations

from html import escape
from typing import Any

from .runs import Run

MEASURES = (
    ("compression_parameters", "fewer parameters", "×"),
    ("compression_bytes", "fewer bytes", "×"),
    ("speedup_latency_p50", "faster, median latency", "×"),
    ("speedup_latency_p95", "faster, 95th percentile", "×"),
    ("speedup_tokens_per_second", "more tokens per second", "×"),
)


def section(run: Run) -> str:
    """Tasks with their protocol and numbers, then size and speed against each other model, then how it was made."""
    results = run.results
    tasks = "".join(task(name, entry) for name, entry in results["tasks"].items())
    others = "".join(against(name, entry) for name, entry in results["comparisons"].items())
    command = f'<h2>Reproduce it</h2><pre class="command">{escape(run.command or "")}</pre>' if run.command else ""
    versions = ", ".join(f"{name} {version}" for name, version in results.get("versions", {}).items())
    made = f"{results.get('device', '')}, {results.get('num_processes', 1)} processes; {versions}."
    return f'{tasks}{others}{command}<p class="note">{escape(made)}</p>'


def task(name: str, entry: dict[str, Any]) -> str:
    head = "".join(f"<th>{words}</th>" for words in ("model", "metric", "value", "95 % interval", "problems"))
    rows = "".join(
        f"<tr><td>{escape(label)}</td><td>{escape(metric)}</td><td>{percent(found['value'])}</td>"
        f"<td>{percent(found['low'])} – {percent(found['high'])}</td><td>{found['n']}</td></tr>"
        for label, summary in entry["models"].items()
        for metric, found in summary["metrics"].items()
    )
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    words = f"Protocol {entry['protocol']}; answer taken from {entry['extraction']}."
    return f'<h2>{escape(name)}</h2><p class="note">{escape(words)}</p>{table}{paired(entry)}'


def paired(entry: dict[str, Any]) -> str:
    """Differences on the same problems, in words."""
    lines = []
    for other, found in entry.get("comparisons", {}).items():
        low, high = found["ci95"]
        kept = f", retention {percent(found['retention'])}" if found["retention"] is not None else ""
        lines.append(
            f"Against {escape(other)}: {100 * found['difference']:+.1f} points "
            f"({100 * low:+.1f} to {100 * high:+.1f}), "
            f"better on {found['better_on']} and worse on {found['worse_on']} problems{kept}."
        )
    if entry.get("gap_recovered") is not None:
        lines.append(f"Gap recovered: {percent(entry['gap_recovered'])}.")
    return f"<p>{'<br>'.join(lines)}</p>" if lines else ""


def against(name: str, entry: dict[str, float]) -> str:
    boxes = "".join(
        f'<div><b class="num">{entry[key]:.2f}{unit}</b><span>{words}</span></div>'
        for key, words, unit in MEASURES
        if key in entry
    )
    return f'<h2>Size and speed against {escape(name)}</h2><div class="facts">{boxes}</div>'


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}\u202f%"
