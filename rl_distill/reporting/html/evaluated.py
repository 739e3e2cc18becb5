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


def section(run: Run, many: bool = False) -> str:
    """Tasks with their protocol and numbers, then size and speed against each other model, then how it was made."""
    results, of_run = run.results, f" · {run.name}" if many else ""
    tasks = "".join(task(name + of_run, entry) for name, entry in results["tasks"].items())
    others = "".join(against(name + of_run, entry) for name, entry in results["comparisons"].items())
    return tasks + others + reproduce(run, of_run)


def reproduce(run: Run, of_run: str) -> str:
    """The command, the machine and the versions."""
    results = run.results
    head = f'<h2>Reproduce it{escape(of_run)}</h2><pre class="command">{escape(run.command or "")}</pre>'
    words = [results.get("device", ""), f"{results.get('num_processes', 1)} processes"]
    words += [f"only the first {results['limit']} problems"] if results.get("limit") else []
    words += [f"commit {results['git_revision'][:12]}"] if results.get("git_revision") else []
    words += [f"{name} {version}" for name, version in results.get("versions", {}).items()]
    return f'{head if run.command else ""}<p class="note">{escape(", ".join(word for word in words if word))}.</p>'


def task(name: str, entry: dict[str, Any]) -> str:
    """One task: its protocol, a table of models and metrics, and what is said of them in words."""
    head = "".join(f"<th>{words}</th>" for words in ("model", "metric", "value", "95 % interval", "problems"))
    rows = "".join(model_rows(label, summary) for label, summary in entry["models"].items())
    table = f'<div class="wide second"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    words = f"Protocol {entry['protocol']}; answer taken from {entry['extraction']}."
    notes = f'<p class="note">{escape(contamination(entry))}</p>' if "decontamination" in entry else ""
    return f'<h2>{escape(name)}</h2><p class="note">{escape(words)}</p>{table}{paired(entry)}{notes}'


def model_rows(label: str, summary: dict[str, Any]) -> str:
    """Every metric of one model; those of the whole corpus have no interval."""
    found = [
        (metric, one["value"], f"{percent(one['low'])} – {percent(one['high'])}", one["n"])
        for metric, one in summary["metrics"].items()
    ]
    found += [(metric, value, "–", summary["num_problems"]) for metric, value in summary.get("corpus", {}).items()]
    return "".join(
        f"<tr><td>{escape(label)}</td><td>{escape(metric)}</td><td>{percent(value)}</td>"
        f"<td>{interval}</td><td>{n:,}</td></tr>"
        for metric, value, interval, n in found
    )


def contamination(entry: dict[str, Any]) -> str:
    found = entry["decontamination"]
    return (
        f"{found['num_overlapping']:,} of {found['num_problems']:,} problems share a run of {found['n']} words with a "
        f"prompt of {found['training_data']}."
    )


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
    gap = entry.get("gap_recovered")
    if gap is not None and gap["value"] is not None:
        around = f" ({percent(gap['ci95'][0])} to {percent(gap['ci95'][1])})" if gap["ci95"] else ""
        lines.append(f"Gap recovered: {percent(gap['value'])}{around}.")
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
