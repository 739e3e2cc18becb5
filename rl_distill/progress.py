"""What the terminal shows while a run works: stages with their seconds, progress bars, and libraries kept quiet."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .timing import cpu_seconds

Item = TypeVar("Item")
SILENT_SECONDS = 5.0
"""A piece of work that lasts longer shows a progress bar."""


def quiet_libraries() -> None:
    """Keeps libraries' own progress bars and notices off the terminal; warnings about results stay."""
    import datasets
    import transformers

    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")  # on outputs that are views: none is written to
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)


class Stages:
    """Announces each stage on the terminal and keeps its wall and CPU seconds (child processes included)."""

    def __init__(self, quiet: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self.running: dict[str, tuple[float, float]] = {}
        """Stages that have begun and not ended: when, by the wall clock and by CPU seconds."""
        self.quiet = quiet

    @contextlib.contextmanager
    def __call__(self, name: str, label: str) -> Iterator[None]:
        if not self.quiet:
            print(f"[{name}] {label} ...", flush=True)
        start, cpu_start = self.running[name] = time.perf_counter(), cpu_seconds()
        try:
            yield
        finally:
            del self.running[name]
        self.seconds[name] = round(time.perf_counter() - start, 3)
        self.cpu_seconds[name] = round(cpu_seconds() - cpu_start, 3)
        if not self.quiet:
            print(f"[{name}] done in {self.seconds[name]:.1f} s", flush=True)

    def so_far(self) -> tuple[dict[str, float], dict[str, float]]:
        """(wall, CPU) seconds by stage, with those of stages that have not ended."""
        now, cpu_now = time.perf_counter(), cpu_seconds()
        wall = {name: round(now - start, 3) for name, (start, _) in self.running.items()}
        cpu = {name: round(cpu_now - start, 3) for name, (_, start) in self.running.items()}
        return self.seconds | wall, self.cpu_seconds | cpu


def progress_bar(items: Sequence[Item], label: str) -> Iterable[Item]:
    """The items, with a bar on the main process's terminal once they have taken five seconds."""
    is_main = os.environ.get("RANK", "0") == "0"
    return tqdm(
        items, desc=label, unit="batch", delay=SILENT_SECONDS, leave=False, file=sys.stderr, disable=not is_main
    )


class StageProgress(TrainerCallback):
    """A progress bar over the optimizer steps of a supervised stage."""

    def __init__(self, label: str) -> None:
        self.label = label

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.bar = tqdm(
            total=state.max_steps,
            desc=self.label,
            unit="step",
            file=sys.stderr,
            mininterval=0.5,
            disable=not state.is_world_process_zero,
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.bar.update()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.bar.close()
