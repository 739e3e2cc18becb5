"""What a run leaves for people: lines on the terminal, metrics.jsonl, results.json, report.md with curves, samples.

Only the main process writes. Wall-clock numbers go to timing.jsonl, apart from metrics.jsonl, so that the metrics of a
resumed run equal those of one that was never stopped.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evals.evaluation import Evaluation
from ..files import finite, write_atomically


def table(teacher: dict[str, float], before: dict[str, float], after: dict[str, float], gap: dict[str, Any]) -> str:
    """The final table in Markdown: accuracy by task of `gap` and the share of the gap to the teacher recovered."""
    lines = [
        "| task | teacher | student before | student after | gap recovered |",
        "|---|---|---|---|---|",
    ]
    for name in gap:
        share = "-" if gap.get(name) is None else f"{100 * gap[name]:.0f} %"
        rates = " | ".join(_rate(stage[name]) for stage in (teacher, before, after))
        lines.append(f"| {name} | {rates} | {share} |")
    return "\n".join(lines)


def _rate(value: float) -> str:
    return "not graded" if math.isnan(value) else f"{value:.3f}"


def sample_text(evaluation: Evaluation, num_samples: int) -> str:
    """Readable completions: prompt, answer and verdict, the same problems in every run."""
    blocks = []
    for problem, completion, verdict in list(
        zip(evaluation.problems, evaluation.completions, evaluation.grades, strict=True)
    )[:num_samples]:
        word = {1.0: "right", 0.0: "wrong", None: "not graded"}.get(verdict, str(verdict))
        blocks.append(f"--- {problem.task}: {word} ({completion.finish.value})\n{problem.prompt}{completion.text}\n")
    return "\n".join(blocks)


@dataclass(frozen=True)
class Curve:
    """Which metrics one picture shows: by full name, by prefix, or by prefix and suffix."""

    title: str
    names: tuple[str, ...] = ()
    prefixes: tuple[tuple[str, str], ...] = ()

    def shows(self, name: str) -> bool:
        return name in self.names or any(name.startswith(p) and name.endswith(s) for p, s in self.prefixes)


def write_evaluations(folder: Path, stages: Mapping[str, Evaluation]) -> None:
    """evaluations.jsonl: every held-out problem with its answer and verdict, by stage (teacher, before, after)."""
    lines = []
    for stage, evaluation in stages.items():
        rows = zip(evaluation.problems, evaluation.completions, evaluation.grades, strict=True)
        for problem, completion, verdict in rows:
            record = {"stage": stage, "task": problem.task, "prompt": problem.prompt, "completion": completion.text}
            lines.append(json.dumps(record | {"grade": verdict}))
    write_atomically(folder / "evaluations.jsonl", "\n".join(lines) + "\n")


CURVES = {
    "accuracy.png": Curve("greedy accuracy on the validation problems", prefixes=(("eval_", ""),)),
    "rewards.png": Curve("reward parts, mean of the rollout", ("reward",), (("success/", ""), ("rewards/", "/mean"))),
    "kl.png": Curve("KL(student || teacher) per token, and the anchor's coefficient", ("kl",), (("anchor/coef", ""),)),
    "length.png": Curve("tokens per completion", ("completions/mean_length",)),
    "critic.png": Curve("explained variance of the critic", ("explained_variance",)),
}


def draw_curves(records: Sequence[dict[str, Any]], folder: Path, teacher: dict[str, float]) -> list[str]:
    """PNG curves over PPO steps; returns the names of the files drawn."""
    if importlib.util.find_spec("matplotlib") is None:  # in the extra [report]; report.html draws its curves itself
        return []
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = []
    for name, curve in CURVES.items():
        series = _series(records, curve)
        if not series:
            continue
        figure, axes = pyplot.subplots(figsize=(7, 4))
        for label, (steps, values) in series.items():
            line = axes.plot(steps, values, label=label, linewidth=1.5)[0]
            task = label.removeprefix("eval_")
            if name == "accuracy.png" and task in teacher:
                axes.axhline(teacher[task], color=line.get_color(), linestyle=":", linewidth=1)
        axes.set_title(curve.title + (" (dotted: teacher on test)" if name == "accuracy.png" else ""), fontsize=10)
        axes.set_xlabel("PPO step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        if name == "critic.png":
            axes.set_ylim(-1, 1)
        figure.tight_layout()
        figure.savefig(folder / name, dpi=110)
        pyplot.close(figure)
        drawn.append(name)
    return drawn


def _series(records: Sequence[dict[str, Any]], curve: Curve) -> dict[str, tuple[list[float], list[float]]]:
    """(steps, values) of each metric that the curve shows; NaN is left out."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for record in records:
        for name, value in record.items():
            if curve.shows(name) and name != "eval_accuracy" and isinstance(value, int | float) and value == value:
                steps, values = series.setdefault(name, ([], []))
                steps.append(record["step"])
                values.append(value)
    return series


def _error(standard_error: float) -> str:
    if math.isnan(standard_error):
        return "none of the answers could be graded"
    return f"one standard error is about {100 * standard_error:.1f} points overall"


def write_report(
    folder: Path, results: dict[str, Any], records: Sequence[dict[str, Any]], samples: str, command: str
) -> None:
    """report.md with the table, the curves beside it, and readable samples; results.json for programs."""
    write_atomically(folder / "results.json", json.dumps(finite(results), indent=2) + "\n")
    write_atomically(folder / "samples.txt", samples)
    drawn = draw_curves(records, folder, results["teacher"])
    seconds = "\n".join(f"| {name} | {value:.1f} |" for name, value in results["wall_seconds"].items())
    pictures = "\n\n".join(f"![{CURVES[name].title}]({name})" for name in drawn)
    text = f"""# Run report

Seed {results["seed"]}. Accuracy on {results["num_test"]} held-out problems, greedy;
{_error(results["standard_error"])}. Reproduce with `{command}`.

{table(results["teacher"], results["student_before"], results["student_after"], results["gap_recovered"])}

Gap recovered = (after - before) / (teacher - before); above 100 % the student passed its teacher.

## Curves

{pictures or "In report.html. Pictures for this page need matplotlib: `pip install 'rl_distill[report]'`."}

## Where the time went

| stage | wall seconds |
|---|---|
{seconds}

## Sample completions

```
{samples.strip()}
```
"""
    write_atomically(folder / "report.md", text)
