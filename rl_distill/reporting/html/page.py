"""The page put together. Nothing in it is fetched: style, script and pictures are inside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from ...config import RunConfig
from ...files import write_atomically
from . import audit, changes, curves, evaluated, numbers, rounds
from .runs import ReportError, Run, read_runs
from .style import CSS, SCRIPT
from .svg import clip_path

# settings that say where and how fast, not what: no result depends on them
PLACES = ("output_dir", "cache_dir", "resume_from_checkpoint", "report_to", "num_threads")


def write(folders: Sequence[Path], out: Path | None = None) -> Path:
    """The report about one or several runs, as a file: `out`, else report.html in the first run's folder.

    A folder of `rl-distill rounds` stands for the runs of its rounds. ReportError where a folder is no finished run, or
    where training and evaluation runs are mixed.
    """
    runs = read_runs(rounds.runs_of(folders))
    if len({run.is_training for run in runs}) > 1:
        raise ReportError("training runs and evaluations cannot share a page: make one of each kind")
    path = out or folders[0] / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page(runs, rounds.section(folders)))
    return path


def page(runs: Sequence[Run], above: str = "") -> str:
    """The whole HTML text; `above` comes before what is said of the runs."""
    if not runs[0].is_training:
        title, body = "Evaluation", "".join(evaluated.section(run, len(runs) > 1) for run in runs)
    elif len(runs) == 1:
        title, body = numbers.headline(runs[0]), one_run(runs[0])
    else:
        title, body = f"{len(runs)} runs compared", several_runs(runs)
    return document(title, above + body, [run.name for run in runs])


def document(title: str, body: str, names: Sequence[str], reload_seconds: int | None = None) -> str:
    """A whole HTML text; with `reload_seconds` the browser fetches it again that often."""
    reload = "" if reload_seconds is None else f'<meta http-equiv="refresh" content="{reload_seconds}">'
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"{reload}<title>{escape(title)}</title><style>{CSS}</style>"
    )
    intro = f'<div class="eyebrow">Distillation report · {escape(", ".join(names))}</div>'
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body>{clip_path()}<main>{intro}<h1>{escape(title)}</h1>'
        f'{body}</main><div id="tip"></div><script>{SCRIPT}</script></body></html>\n'
    )


def one_run(run: Run) -> str:
    return "".join(
        [
            numbers.facts(run),
            numbers.picture(run),
            numbers.table([run]),
            '<p class="note">Greedy answers to held-out problems; small print: 95 % intervals. Gap recovered = '
            "(after − before) / (teacher − before), so above 100 % the student has passed its teacher.</p>",
            part("How it went", curves.figures([run])),
            part("What changed", changes.section(run)),
            part("Reward audit", audit.section(run)),
            part("Where the time went", seconds(run)),
            part("Settings", settings([run])),
            part("Reproduce it", reproduce([run])),
        ]
    )


def several_runs(runs: Sequence[Run]) -> str:
    titled = "".join(f"<h3>{escape(run.name)}</h3>{{}}" for run in runs)
    return "".join(
        [
            '<p class="lead">' + "<br>".join(f"{escape(r.name)}: {escape(numbers.headline(r))}" for r in runs) + "</p>",
            numbers.table(runs),
            part("How it went", curves.figures(runs)),
            part("Reward audit", titled.format(*(audit.section(run) for run in runs))),
            part("What changed", titled.format(*(changes.section(run) for run in runs))),
            part("Settings that differ", settings(runs)),
            part("Reproduce them", reproduce(runs)),
        ]
    )


def part(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def seconds(run: Run) -> str:
    """Wall seconds of each stage as bars."""
    found = {name: value for name, value in run.results.get("wall_seconds", {}).items() if value >= 0.05}
    longest = max(found.values(), default=0.0)
    bars = "".join(
        f'<span>{escape(name.replace("_", " "))}</span><i style="width:{100 * value / longest:.1f}%"></i>'
        f'<span class="num">{numbers.duration(value) if value >= 90 else f"{value:.1f} s"}</span>'
        for name, value in found.items()
    )
    return f'<div class="bars">{bars}</div>' if bars else ""


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted names of all settings; lists stay whole."""
    if not isinstance(config, dict):
        return {prefix.rstrip("."): config}
    return {name: value for key, inner in config.items() for name, value in flat(inner, f"{prefix}{key}.").items()}


def settings(runs: Sequence[Run]) -> str:
    """One run: what differs from the defaults, all of it behind a click. Several: what differs between them."""
    configs = [flat(run.results.get("config", {})) for run in runs]
    names = list(dict.fromkeys(name for config in configs for name in config))
    if len(runs) > 1:
        different = [name for name in names if name not in PLACES and unlike(configs, name)]
        return rows(different, configs, [run.name for run in runs]) or '<p class="note">None.</p>'
    defaults = flat(RunConfig().to_dict())
    changed = [name for name in names if defaults.get(name) != configs[0][name] and name not in PLACES]
    everything = f"<details><summary>All {len(names)} settings</summary>{rows(names, configs, ['value'])}</details>"
    return '<p class="note">Those that differ from the defaults:</p>' + rows(changed, configs, ["value"]) + everything


def unlike(configs: Sequence[dict[str, Any]], name: str) -> bool:
    return len({json.dumps(config.get(name)) for config in configs}) > 1


def rows(names: Sequence[str], configs: Sequence[dict[str, Any]], heads: Sequence[str]) -> str:
    if not names:
        return ""
    head = "<th>setting</th>" + "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f"<td>{escape(json.dumps(config.get(name)))}</td>" for config in configs)
        + "</tr>"
        for name in names
    )
    kind = "wide narrow" if len(heads) == 1 else "wide"
    return f'<div class="{kind}"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def reproduce(runs: Sequence[Run]) -> str:
    """The command of each run, and the versions of what decides the numbers."""
    commands = (
        "".join(f'<pre class="command">{escape(run.command)}</pre>' for run in runs if run.command)
        or '<p class="note">The command was not recorded; results.json holds every setting.</p>'
    )
    found = runs[0].results.get("versions", {})
    words = ", ".join(f"{escape(name)} {escape(str(version))}" for name, version in found.items())
    return f'{commands}<p class="note">With {words}.</p>' if words else commands
