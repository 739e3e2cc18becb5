"""What training writes down while it runs: metrics.jsonl, timing.jsonl and the progress bar over PPO steps.

Only the main process writes. Wall-clock numbers go to timing.jsonl, apart from metrics.jsonl, so that the metrics of a
resumed run equal those of one that was never stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..files import json_line, read_jsonl, write_atomically

EPHEMERAL = ("epoch", "total_flos", "train_runtime", "train_samples_per_second", "train_steps_per_second")


class PPOProgress(TrainerCallback):
    """A progress bar over PPO steps, with the numbers that matter."""

    def __init__(self, num_steps: int, updates_per_step: int) -> None:
        self.num_steps, self.updates = num_steps, updates_per_step
        self.shown: dict[str, str] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        done = state.global_step // self.updates
        self.bar = tqdm(
            total=self.num_steps,
            initial=done,
            desc="ppo",
            unit="step",
            file=sys.stderr,
            mininterval=0.5,
            disable=not state.is_world_process_zero,
        )

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        logs = logs or {}
        names = {"reward": "reward", "kl": "kl", "explained_variance": "ev", "eval_accuracy": "val"}
        self.shown |= {short: f"{logs[name]:.3f}" for name, short in names.items() if name in logs}
        self.bar.set_postfix(self.shown, refresh=False)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.updates == 0:
            self.bar.update()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.bar.close()


class MetricsWriter(TrainerCallback):
    """Appends each record to metrics.jsonl and, where a timer is given, wall-clock numbers to timing.jsonl; null stands
    for NaN and infinities.

    On a resumed run it first drops records after the checkpoint's step, so nothing is counted twice.
    """

    def __init__(self, folder: Path, updates_per_step: int, timing: Any = None) -> None:
        self.metrics_path, self.timing_path = folder / "metrics.jsonl", folder / "timing.jsonl"
        self.updates, self.timing = updates_per_step, timing

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            for path in (self.metrics_path, self.timing_path):
                keep = [r for r in read_jsonl(path) if r["step"] * self.updates <= state.global_step]
                keep = keep if state.global_step else []
                write_atomically(path, "".join(map(json_line, keep)))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        step = state.global_step / self.updates
        record = {"step": int(step) if step.is_integer() else step}
        record |= {key: value for key, value in logs.items() if key not in EPHEMERAL}
        self._append(self.metrics_path, record)
        if self.timing is not None and "loss" in logs:
            self._append(self.timing_path, {"step": record["step"], **self.timing()})

    @staticmethod
    def _append(path: Path, record: dict[str, Any]) -> None:
        with path.open("a") as file:
            file.write(json_line(record))
