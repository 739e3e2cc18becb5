"""The headline: who solves how much, with intervals, as a picture and as a table; for one run or several."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ...evals import statistics
from ...evals.statistics import Estimate
from .runs import STAGES, Run, estimate, gap_interval, triples

WORDS = {"teacher": "teacher", "before": "before", "after": "after"}


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or value != value else f"{100 * value:.{digits}f}\u202f%"


def points(change: float) -> str:
    """A difference in points with its sign; a dash where there is none, and no sign where it rounds to 0."""
    words = f"{100 * change:+.1f}"
    return "–" if is_nan(change) else "0.0" if words in ("+0.0", "-0.0") else words


def is_nan(value: float) -> bool:
    return value != value


def interval(estimate: Estimate) -> str:
    return "" if estimate.low != estimate.low else f"{100 * estimate.low:.1f} – {100 * estimate.high:.1f}"


def headline(run: Run) -> str:
    """One sentence with the outcome of the run, no more certain than the numbers are."""
    task = run.tasks()[0]
    teacher, before, after = (estimate(run, stage, task) for stage in STAGES)
    if is_nan(before.value) or is_nan(after.value):
        return "The student's answers could not be graded"
    change = f"from {percent(before.value)} to {percent(after.value)}"
    if percent(after.value) == percent(before.value):
        return f"The student stayed at {percent(after.value)}"
    if after.value < before.value:
        return f"The student fell {change}"
    if after.low > teacher.high:
        return f"The student rose {change}, past its teacher"
    if teacher.value > before.value and after.value >= teacher.value:
        return f"The student rose {change}, level with its teacher"
    if teacher.value > before.value:
        share = (after.value - before.value) / (teacher.value - before.value)
        return f"The student rose {change}, {share:.0%} of the way to its teacher"
    return f"The student rose {change}"


def facts(run: Run) -> str:
    """The few numbers beside the headline."""
    task = run.tasks()[0]
    gap = run.results.get("gap_recovered", {}).get(task)
    ledger, seconds = run.results.get("ledger", {}), run.results.get("wall_seconds", {})
    shown = [
        (percent(gap, 0) if gap is not None else None, "of the gap recovered"),
        (f"{run.results['num_test']:,}" if run.results.get("num_test") else None, "held-out problems"),
        (f"{ledger['student_sequences']:,}" if ledger.get("student_sequences") else None, "answers sampled"),
        (duration(sum(seconds.values())) if seconds else None, "wall time"),
        (f"{run.results['peak_memory_mib']:,} MiB" if run.results.get("peak_memory_mib") else None, "peak memory"),
        (str(run.results["seed"]) if "seed" in run.results else None, "seed"),
    ]
    boxes = (f'<div><b class="num">{value}</b><span>{words}</span></div>' for value, words in shown if value)
    return f'<div class="facts">{"".join(boxes)}</div>'


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def picture(run: Run) -> str:
    """Each task on a scale from 0 to 100 %: before and after as dots, the teacher as a bar, intervals behind them."""
    key = (
        '<div class="key" style="padding-top:10px"><span><i class="round before"></i>student before</span>'
        '<span><i class="round after"></i>student after</span><span><i class="tick teacher"></i>teacher</span>'
        "<span>shaded: 95 % interval</span></div>"
    )
    rows = "".join(score_row(run, task) for task in run.tasks())
    marks = "".join(f'<em style="left:{n}%">{n}{" %" if n == 100 else ""}</em>' for n in (0, 25, 50, 75, 100))
    ruler = f"<div>{marks}</div>"
    return f'<div class="card scores">{key}{rows}<div class="scale"><span></span>{ruler}<span></span></div></div>'


def score_row(run: Run, task: str) -> str:
    teacher, before, after = (estimate(run, stage, task) for stage in STAGES)
    graded = not is_nan(before.value + after.value)
    marks = [_band("span", min(before.value, after.value), max(before.value, after.value))] if graded else []
    for name, found in (("teacher", teacher), ("before", before), ("after", after)):
        if found.low == found.low:
            marks.append(_band(f"ci {name}", found.low, found.high))
        if not is_nan(found.value):
            marks.append(f'<i class="dot {name}" style="left:{100 * found.value:.2f}%"></i>')
    gain = after.value - before.value
    words = f"{task}: before {percent(before.value)}, after {percent(after.value)}, teacher {percent(teacher.value)}"
    size = f"<small>{after.n:,} problems</small>" if after.n else ""
    return (
        f'<div class="score"><b>{escape(task)}{size}</b><div class="track" role="img" aria-label="{escape(words)}">'
        f'{"".join(marks)}</div><div class="gain num {_tone(points(gain))}">{points(gain)}'
        "<small>points</small></div></div>"
    )


def _tone(change: str) -> str:
    """The colour of a change as it is printed: none where it rounds to 0 or is not known."""
    return {"+": "good", "-": "bad"}.get(change[0], "")


def _band(kind: str, low: float, high: float) -> str:
    return f'<i class="{kind}" style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></i>'


def table(runs: Sequence[Run]) -> str:
    """Teacher, before, after with intervals; change and gap recovered with theirs where the answers were kept."""
    many = len(runs) > 1
    head = "".join(f"<th>{w}</th>" for w in ("teacher", "before", "after", "change", "gap recovered"))
    first = "<th>run</th><th>task</th>" if many else "<th>task</th>"
    rows = "".join(table_row(run, task, many) for run in runs for task in run.tasks())
    kind = "wide second" if many else "wide"
    return f'<div class="{kind}"><table><thead><tr>{first}{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def table_row(run: Run, task: str, many: bool) -> str:
    cells = [f"<td>{escape(run.name)}</td>" if many else "", f"<td>{escape(task)}</td>"]
    for stage in STAGES:
        found = estimate(run, stage, task)
        cells.append(f"<td>{percent(found.value)}<small>{interval(found)}</small></td>")
    cells.append(change_cell(run, task))
    gap, span = run.results.get("gap_recovered", {}).get(task), gap_interval(run, task)
    words = "no gap" if gap is None else percent(gap, 0)
    around = (
        f"{100 * span[0]:.0f} – {100 * span[1]:.0f}"
        if span
        else "gap too small to bound"
        if triples(run, task) and gap
        else ""
    )
    return f"<tr>{''.join(cells)}<td>{words}<small>{around}</small></td></tr>"


def change_cell(run: Run, task: str) -> str:
    """after - before in points, with the paired bootstrap's interval where the answers were kept."""
    rows = triples(run, task)
    if not rows:
        before, after = estimate(run, "before", task).value, estimate(run, "after", task).value
        return f"<td>{points(after - before)}</td>"
    found = statistics.paired_bootstrap([a["grade"] for _, _, a in rows], [b["grade"] for _, b, _ in rows])
    kind = "good" if found.low > 0 else "bad" if found.high < 0 else ""
    around = f"{points(found.low)} to {points(found.high)}"
    return f'<td class="{kind}">{points(found.difference)}<small>{around}</small></td>'
