"""Which curves the report shows, and how several runs share one picture: colour is the run, dashes are the series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from .runs import Run
from .svg import DASHES, NUM_COLORS, Series, line_chart, moving_mean, stacked_chart

MAX_RAW_POINTS = 60  # curves with more points are smoothed
PHASES = {
    "generate": "sampling",
    "teacher": "teacher scoring",
    "reward": "rewards",
    "prepare": "preparation",
    "update": "updates",
    "evaluate": "validation",
}
Label = Callable[[str], str]


@dataclass(frozen=True)
class Panel:
    """One picture: the metrics it shows by exact name or (prefix, suffix), and what it tells."""

    title: str
    caption: str
    names: tuple[str, ...] = ()
    pattern: tuple[str, str] | None = None
    skip: tuple[str, ...] = ()
    percent: bool = False
    y_low: float | None = None
    y_high: float | None = None
    teacher_level: bool = False

    def metrics(self, runs: Sequence[Run]) -> list[str]:
        found = [name for name in self.names if any(run.series(name) for run in runs)]
        if self.pattern:
            names = dict.fromkeys(name for run in runs for name in run.names(*self.pattern))
            found += [name for name in names if name not in self.skip and name not in found]
        if len(runs) > 1 and "eval_overall" in found:
            return ["eval_overall"]  # a line per run and task would be a tangle
        return found[:1] if found[1:] == ["rewards/total/mean"] else found  # one part alone is the total

    def label(self, name: str) -> str:
        prefix, suffix = self.pattern or ("", "")
        bare = name.removeprefix(prefix) if prefix else name
        return (bare.removesuffix(suffix) if suffix else bare).replace("_", " ").rpartition("/")[2]


PANELS = (
    Panel(
        "Accuracy on validation problems",
        "Greedy answers, checked. Dotted: the run's teacher on the test problems.",
        pattern=("eval_", ""),
        skip=("eval_accuracy",),
        percent=True,
        teacher_level=True,
    ),
    Panel(
        "Success while sampling",
        "Share of sampled answers that pass the check.",
        pattern=("success/", ""),
        percent=True,
    ),
    Panel(
        "Share of the prompts",
        "What each source or task gave to a step.",
        pattern=("sampling/share/", ""),
        percent=True,
        y_low=0.0,
    ),
    Panel("Reward", "Mean over the rollout: each part before its weight.", pattern=("rewards/", "/mean")),
    Panel("KL to the teacher", "How far the student moved away, in nats per token.", names=("kl",), y_low=0.0),
    Panel(
        "Strength of the KL penalty",
        "Coefficient of the KL term; under the evidence schedule it falls as the student catches up.",
        pattern=("anchor/coefficient", ""),
        y_low=0.0,
    ),
    Panel(
        "Entropy", "Of the student's next token, in nats. At 0 it no longer explores.", names=("entropy",), y_low=0.0
    ),
    Panel("Length", "Tokens per answer.", names=("completions/mean_length",)),
    Panel(
        "Cut by length",
        "Share of answers that reached the length limit.",
        names=("completions/cut_by_length",),
        percent=True,
        y_low=0.0,
    ),
    Panel(
        "Critic",
        "Explained variance of the returns: 1 predicts them exactly, 0 is no better than a constant.",
        names=("explained_variance",),
        y_low=-1.0,
        y_high=1.0,
    ),
    Panel(
        "Size of an update",
        "Share of tokens whose change was clipped.",
        names=("policy/clip_fraction",),
        percent=True,
        y_low=0.0,
    ),
    Panel("Gradient norm", "Before clipping.", names=("grad_norm",), y_low=0.0),
)


def figures(runs: Sequence[Run]) -> str:
    """All panels that have data, in a grid; empty where no run has curves."""
    drawn = [text for panel in PANELS if (text := figure(panel, runs))]
    drawn += [text for run in runs if (text := time_figure(run, len(runs) > 1))]
    words = "Horizontal axis: PPO steps. Bold lines are moving means, faint lines single steps."
    return f'<p class="note">{words}</p><div class="grid">{"".join(drawn)}</div>' if drawn else ""


def figure(panel: Panel, runs: Sequence[Run]) -> str:
    series = series_of(panel, runs)
    if not series:
        return ""
    chart = line_chart(series, panel.title, percent=panel.percent, y_low=panel.y_low, y_high=panel.y_high)
    return wrapped(panel.title, panel.caption, legend(series) if len(series) > 1 else "", chart)


def series_of(panel: Panel, runs: Sequence[Run]) -> list[Series]:
    names = panel.metrics(runs)
    many = len(runs) > 1
    series = []
    for r, run in enumerate(runs):
        for m, name in enumerate(names):
            points = run.series(name)
            if not points:
                continue
            task = panel.label(name)
            label = (f"{run.name}: {task}" if len(names) > 1 else run.name) if many else task
            smooth = max(5, len(points) // 30) if len(points) > MAX_RAW_POINTS else 0
            level = run.results.get("teacher", {}).get(task) if panel.teacher_level else None
            series.append(Series(label, points, r if many else m, m if many else 0, smooth, level))
    return series


def time_figure(run: Run, many: bool) -> str:
    """Seconds of each step by phase, stacked; a phase that a step did not have took none of it."""
    names = run.names("seconds/", timing=True)
    steps = sorted({record["step"] for record in run.timing})
    if not names or len(steps) < 2:
        return ""
    window = max(5, len(steps) // 40)
    series = []
    for color, name in enumerate(names):
        values = dict(run.series(name, timing=True))
        bare = name.removeprefix("seconds/")
        points = [(step, values.get(step, 0.0)) for step in steps]
        series.append(Series(PHASES.get(bare, bare), points, color))
    smooth = [Series(s.label, moving_mean(s.points, window), s.color) for s in clipped(series)]
    title = f"Time of a step: {run.name}" if many else "Time of a step"
    return wrapped(title, "Seconds by phase, stacked.", legend(series), stacked_chart(smooth, title))


def clipped(series: Sequence[Series]) -> list[Series]:
    """The series with single slow steps brought down to three times the median total, so that the rest can be seen."""
    totals = [sum(values) for values in zip(*([y for _, y in s.points] for s in series), strict=True)]
    limit = 3 * sorted(totals)[len(totals) // 2]
    scale = [min(1.0, limit / total) if total else 1.0 for total in totals]
    return [Series(s.label, [(x, y * f) for (x, y), f in zip(s.points, scale, strict=True)], s.color) for s in series]


def wrapped(title: str, caption_text: str, key: str, chart: str) -> str:
    caption = f"<h3>{escape(title)}</h3><figcaption>{escape(caption_text)}</figcaption>"
    return f'<figure class="card">{caption}{key}{chart}</figure>'


def legend(series: Sequence[Series]) -> str:
    return '<div class="key">' + "".join(f"<span>{_sign(s)}{escape(s.label)}</span>" for s in series) + "</div>"


def _sign(s: Series) -> str:
    dash = DASHES[s.dash % len(DASHES)]
    style = f"stroke:var(--c{s.color % NUM_COLORS});stroke-width:3;stroke-dasharray:{dash or 'none'}"
    return f'<svg viewBox="0 0 22 6" aria-hidden="true"><line x1="0" x2="22" y1="3" y2="3" style="{style}"/></svg>'
