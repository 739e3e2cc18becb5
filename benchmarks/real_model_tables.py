"""The tables of benchmarks/real_model.py: Markdown from its parts. Reads verdicts, runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from rl_distill.evals.statistics import estimate, paired_bootstrap

Parts = Mapping[str, Sequence[Mapping[str, Any]]]
LAST_STEPS = 10


def by_problem(parts: Sequence[Mapping[str, Any]], rung: str) -> list[float]:
    """Per held-out problem the mean of its verdicts over seeds: seeds are no further problems."""
    return [mean(verdicts) for verdicts in zip(*(part["verdicts"][rung] for part in parts), strict=True)]


def accuracy_table(parts: Parts, names: Mapping[str, str], rungs: Sequence[str]) -> str:
    """Accuracy with a 95 % interval over problems, the paired gain over the model as it is, and costs."""
    head = ["arm", "seeds", *(f"{rung} | gain" for rung in rungs), "samples", "learning rate", "CPU s"]
    lines = [row(head), "|---|---:|" + "---|" * (2 * len(rungs)) + "---:|" * 3]
    for arm, runs in parts.items():
        cells = [names[arm], str(len(runs))]
        for rung in rungs:
            cells += [accuracy(runs, rung), gain(parts, arm, rung)]
        costs = [runs[0].get("sequences"), runs[0].get("learning_rate"), average(runs, "cpu_seconds")]
        lines.append(row(cells + ["" if cost is None else f"{cost:g}" for cost in costs]))
    return "\n".join(lines)


def forgetting_table(parts: Parts, names: Mapping[str, str], rungs: Sequence[str]) -> str:
    """The rungs that were not trained on, and perplexity on general text."""
    first = next(iter(parts.values()))[0]
    others = [rung for rung in first["verdicts"] if rung not in rungs]
    kinds = list(first["perplexity"])
    lines = [row(["arm", *others, *(f"perplexity, {kind}" for kind in kinds)])]
    lines.append("|---|" + "---:|" * (len(others) + len(kinds)))
    for arm, runs in parts.items():
        cells = [f"{mean(by_problem(runs, rung)):.3f}" for rung in others]
        cells += [f"{mean(run['perplexity'][kind] for run in runs):.2f}" for kind in kinds]
        lines.append(row([names[arm], *cells]))
    counts = sorted({len(first["verdicts"][rung]) for rung in others})
    return "\n".join([*lines, "", f"Held-out problems per task: {', '.join(map(str, counts))}."])


def critic_table(parts: Parts) -> str:
    """What the critic explained of the returns' variance, where an arm had one that learned."""
    lines = []
    for run in parts.get("anchored_ppo", ()):
        explained = run["curves"]["explained_variance"]
        last = explained[-LAST_STEPS:]
        lines.append(row([str(run["seed"]), f"{explained[0]:.2f}", f"{mean(last):.2f}", f"{max(explained):.2f}"]))
    if not lines:
        return ""
    head = ["seed", "explained variance, first step", f"mean of the last {LAST_STEPS}", "best step"]
    return "\n".join([row(head), "|---|---:|---:|---:|", *lines])


def accuracy(runs: Sequence[Mapping[str, Any]], rung: str) -> str:
    found = estimate(by_problem(runs, rung))
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def gain(parts: Parts, arm: str, rung: str) -> str:
    if arm == "before" or "before" not in parts:
        return ""
    found = paired_bootstrap(by_problem(parts[arm], rung), by_problem(parts["before"], rung))
    return f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def average(runs: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [run[name] for run in runs if run.get(name) is not None]
    return round(mean(values)) if values else None


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
