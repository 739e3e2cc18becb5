"""Line charts and stacked areas as inline SVG: points in, text out. Colours come from the page's CSS variables.

A chart carries its points as JSON for the page's hover script; without scripts it is complete all the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 400, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 26
NUM_COLORS = 8
DASHES = ("", "5 3", "1.5 3")
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """One line. `smooth`: also drawn as a moving mean over that many points, the raw line behind it faint."""

    label: str
    points: Points
    color: int = 0
    dash: int = 0
    smooth: int = 0
    level: float | None = None
    """A dotted horizontal line in the same colour, as a reference for the curve."""


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) that lie in low..high."""
    if not high > low:
        return [low]
    rough = (high - low) / wanted
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def moving_mean(points: Points, window: int) -> Points:
    """Mean of the values at most window // 2 places away, fewer at the ends."""
    half, values = window // 2, [value for _, value in points]
    return [
        (x, sum(near) / len(near))
        for i, (x, _) in enumerate(points)
        if (near := values[max(0, i - half) : i + half + 1])
    ]


def short(value: float) -> str:
    """A number for people: 0.05, 1.2k, 35."""
    size = abs(value)
    if size >= 10_000:
        return f"{value / 1000:.3g}k"
    if size and size < 0.001:
        return f"{value:.0e}"
    return f"{value:.3g}"


@dataclass(frozen=True)
class Frame:
    """Where data lands in the picture."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / ((self.x_high - self.x_low) or 1) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / ((self.y_high - self.y_low) or 1) * (HEIGHT - TOP - BOTTOM)

    def path(self, points: Points) -> str:
        return "M" + "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)


def frame_of(series: Sequence[Series], y_low: float | None, y_high: float | None) -> Frame:
    """Room for every line as it is drawn most boldly; raw noise behind a moving mean may be cut at the edge."""
    xs = [x for s in series for x, _ in s.points]
    ys = [y for s in series for _, y in (moving_mean(s.points, s.smooth) if s.smooth else s.points)]
    ys += [s.level for s in series if s.level is not None]
    low = min(ys) if y_low is None else y_low
    high = max(ys) if y_high is None else y_high
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 0.5
    return Frame(
        min(xs), max(xs), low if y_low is not None else low - margin, high if y_high is not None else high + margin
    )


def axes(frame: Frame, percent: bool) -> str:
    parts = []
    for value in ticks(frame.y_low, frame.y_high):
        y = frame.y(value)
        text = f"{100 * value:.3g}%" if percent else short(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>')
    for value in ticks(frame.x_low, frame.x_high, 5):
        parts.append(f'<text x="{frame.x(value):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{short(value)}</text>')
    return "".join(parts)


def line_chart(
    series: Sequence[Series],
    title: str,
    *,
    percent: bool = False,
    y_low: float | None = None,
    y_high: float | None = None,
) -> str:
    """The picture of several lines over steps; `title` is what a screen reader says."""
    series = [s for s in series if s.points]
    frame = frame_of(series, y_low, y_high)
    return _picture(frame, series, title, percent, "".join(_line(frame, s) for s in series))


def _line(frame: Frame, s: Series) -> str:
    dash = f' stroke-dasharray="{DASHES[s.dash % len(DASHES)]}"' if s.dash % len(DASHES) else ""
    style = f'style="stroke:var(--c{s.color % NUM_COLORS})"{dash}'
    parts = []
    if s.level is not None:
        y = frame.y(s.level)
        parts.append(f'<line class="level" {style} x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    if s.smooth and len(s.points) > 2:
        parts.append(f'<path class="raw" {style} d="{frame.path(thinned(s.points))}"/>')
        parts.append(f'<path class="line" {style} d="{frame.path(thinned(moving_mean(s.points, s.smooth)))}"/>')
    else:
        parts.append(f'<path class="line" {style} d="{frame.path(thinned(s.points))}"/>')
        if len(s.points) <= 20:
            dots = (f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2.2"/>' for x, y in s.points)
            parts.append(f'<g class="dots" style="fill:var(--c{s.color % NUM_COLORS})">{"".join(dots)}</g>')
    return "".join(parts)


def thinned(points: Points, limit: int = 400) -> Points:
    """At most `limit` + 1 of the points, evenly chosen, the last one kept."""
    step = max(1, math.ceil(len(points) / limit))
    kept = points[::step]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def stacked_chart(series: Sequence[Series], title: str) -> str:
    """Areas on top of one another, the first at the bottom; every series must have the same steps."""
    steps = [x for x, _ in series[0].points]
    below = [0.0] * len(steps)
    areas, tops = [], 0.0
    for s in series:
        above = [b + y for b, (_, y) in zip(below, s.points, strict=True)]
        areas.append((s.color, below, above))
        below, tops = above, max(tops, *above)
    frame = Frame(min(steps), max(steps), 0.0, tops * 1.05 or 1.0)
    shapes = ""
    for color, low, high in areas:
        edge = thinned(list(zip(steps, high, strict=True)))
        back = thinned(list(zip(steps, low, strict=True)))[::-1]
        shapes += f'<path class="area" style="fill:var(--c{color % NUM_COLORS})" d="{frame.path(edge + back)}Z"/>'
    return _picture(frame, series, title, False, shapes)


def clip_path() -> str:
    """The plot area that every chart of a page refers to; goes into the page once."""
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM + 6
    rect = f'<rect x="{LEFT}" y="{TOP - 4}" width="{width}" height="{height}"/>'
    return f'<svg width="0" height="0" style="position:absolute"><clipPath id="plot">{rect}</clipPath></svg>'


def _picture(frame: Frame, series: Sequence[Series], title: str, percent: bool, body: str) -> str:
    points = {
        "x": [frame.x_low, frame.x_high],
        "percent": percent,
        "series": [
            {
                "label": s.label,
                "color": s.color % NUM_COLORS,
                "points": [[x, float(f"{y:.4g}")] for x, y in thinned(moving_mean(s.points, s.smooth or 1), 200)],
            }
            for s in series
        ],
    }
    data = escape(json.dumps(points, separators=(",", ":")))
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" '
        f'data-chart="{data}">'
        f"{axes(frame, percent)}"
        f'<g clip-path="url(#plot)">{body}</g><line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/></svg>'
    )
