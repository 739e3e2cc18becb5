"""report.html while a run lasts: redrawn at every evaluation, reloaded by the browser, replaced at the end.

May assume the metrics files of reporting/training_log.py. Only the main process writes; nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...config import RunConfig
from ...files import read_jsonl, write_atomically
from . import curves
from .page import document, part, settings
from .runs import Run

RELOAD_SECONDS = 20


class LiveReport(TrainerCallback):
    """Writes the page when training starts and after each evaluation. `accuracies`: of teacher and student before."""

    def __init__(self, config: RunConfig, accuracies: Mapping[str, Mapping[str, float]], updates_per_step: int) -> None:
        self.config, self.accuracies, self.updates = config, accuracies, updates_per_step
        self.path = Path(config.output_dir) / "report.html"

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self.write(state)
            print(f"report, redrawn at every evaluation: {self.path}", flush=True)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self.write(state)

    def write(self, state: TrainerState) -> None:
        step = state.global_step // self.updates
        write_atomically(self.path, running_page(read_running(self.config, self.accuracies), step))


def read_running(config: RunConfig, accuracies: Mapping[str, Mapping[str, float]]) -> Run:
    """The run as far as its files go. `results` holds the settings and the accuracies before training."""
    folder = Path(config.output_dir)
    results = {"config": config.to_dict(), **accuracies}
    metrics, timing = read_jsonl(folder / "metrics.jsonl"), read_jsonl(folder / "timing.jsonl")
    return Run(folder.resolve().name, results, metrics, timing)


def running_page(run: Run, step: int) -> str:
    """The whole HTML text of a run that has finished `step` PPO steps."""
    num_steps = run.results["config"]["ppo"]["num_steps"]
    title = f"Training: step {step} of {num_steps}"
    bar = f'<div class="bars"><span>progress</span><i style="width:{100 * step / num_steps:.1f}%"></i>'
    bar += f'<span class="num">{100 * step / num_steps:.0f} %</span></div>'
    note = f'<p class="note">The page reloads every {RELOAD_SECONDS} seconds until the run is over.</p>'
    body = [bar, note, scores(run), part("How it goes", curves.figures([run])), part("Settings", settings([run]))]
    return document(title, "".join(body), [run.name], reload_seconds=RELOAD_SECONDS)


def scores(run: Run) -> str:
    """Accuracy of the teacher and the untrained student on the test problems, and the last one on validation."""
    tasks = list(run.results.get("teacher", {}))
    names = {"teacher": "teacher (test)", "student_before": "student before (test)"}
    rows = {label: run.results.get(key, {}) for key, label in names.items()}
    latest = {task: run.series(f"eval_{task}") for task in tasks}
    rows["student now (validation)"] = {task: points[-1][1] for task, points in latest.items() if points}
    head = "".join(f"<th>{escape(task)}</th>" for task in tasks)
    body = "".join(
        f"<tr><td>{escape(label)}</td>{''.join(cell(values.get(task)) for task in tasks)}</tr>"
        for label, values in rows.items()
    )
    table = (
        f'<div class="wide"><table><thead><tr><th>accuracy</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )
    return table if tasks else ""


def cell(value: float | None) -> str:
    return f"<td>{'–' if value is None or value != value else f'{100 * value:.1f} %'}</td>"
