"""What keeps a run's work when it is interrupted: signals end it with a checkpoint, the clock asks for one in between.

Each process may be asked; all of them agree at the end of a PPO step. A second Ctrl-C stops at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from ... import distributed

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

SAME_PRESS_SECONDS = 1.0
"""A launcher hands on the Ctrl-C that the terminal has sent to every process already."""
FIRST_PRESS = b"\nCtrl-C: the run finishes its step, saves and stops; press it again to stop at once, without saving\n"


class StopOnSignal(TrainerCallback):
    """After SIGTERM (a preemption) or Ctrl-C: saves at the end of the PPO step and stops training on all processes."""

    def __init__(self, updates_per_step: int) -> None:
        self.updates_per_step = updates_per_step
        self.asked = self.stopped = False
        self.pressed_at: float | None = None
        self._handlers_before: dict[int, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in ((signal.SIGTERM, self._ask), (signal.SIGINT, self._press)):
                self._handlers_before[number] = signal.signal(number, handler)

    def restore(self) -> None:
        """Gives the signals back to whom they belonged before; to be called also where training ends by an error."""
        while self._handlers_before:
            signal.signal(*self._handlers_before.popitem())

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True

    def _press(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self.pressed_at is not None and now - self.pressed_at > SAME_PRESS_SECONDS:
            raise KeyboardInterrupt
        if self.pressed_at is None:
            self.pressed_at, self.asked = now, True
            if os.environ.get("RANK", "0") == "0":
                os.write(2, FIRST_PRESS)  # print is not to be called from within itself

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.updates_per_step:
            return
        if distributed.sum_over_processes(torch.tensor(float(self.asked))) > 0:
            self.stopped = control.should_save = control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.restore()
        if self.stopped and state.is_world_process_zero:
            step, name = state.global_step // self.updates_per_step, "SIGTERM" if self.pressed_at is None else "Ctrl-C"
            words = f"\n{name}: saved after step {step}; go on with --resume_from_checkpoint latest"
            print(words, file=sys.stderr, flush=True)


class SaveByTheClock(TrainerCallback):
    """Saves after a PPO step if the last checkpoint is at least `minutes` old, and after the last step."""

    def __init__(self, minutes: float | None, updates_per_step: int) -> None:
        self.minutes, self.updates_per_step = minutes, updates_per_step
        self.saved_at = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.saved_at = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.updates_per_step == 0:
            is_late = self.minutes is not None and time.monotonic() - self.saved_at > 60 * self.minutes
            is_last = state.global_step >= state.max_steps
            control.should_save = distributed.from_main(control.should_save or is_late or is_last)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.saved_at = time.monotonic()
