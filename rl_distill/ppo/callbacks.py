"""What watches a run: new bests and lost patience, a critic that is worse than none, completions put on disk.

Each reads what Trainer's state holds already, so a resumed run goes on as if it had never stopped.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from .. import distributed
from ..teachers.curriculum import TeacherCurriculum
from .coefficients import Coefficient, EvidenceCoefficient, SuccessCount
from .completions_log import gather_rows, publish, write_rows
from .rollout_building import Rollout

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

BEST_BY = "eval_accuracy"
EVIDENCE_STEPS = 20


class BestAndPatience(TrainerCallback):
    """Saves at each new best evaluation (`save_best`), and stops after `patience` evaluations without one."""

    def __init__(self, patience: int | None, save_best: bool) -> None:
        self.patience, self.save_best = patience, save_best

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        control.should_training_stop = control.should_training_stop or self._is_over(state)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        since_best = evaluations_since_best(_evaluations(state))
        if self.save_best and since_best == 0:
            control.should_save = True
        if self._is_over(state):
            control.should_training_stop = control.should_save = True
            if state.is_world_process_zero:
                print(f"\nstopped early: no better validation accuracy in {self.patience} evaluations", flush=True)

    def _is_over(self, state: Any) -> bool:
        return self.patience is not None and evaluations_since_best(_evaluations(state)) >= self.patience


def _evaluations(state: Any) -> list[float]:
    return [record[BEST_BY] for record in state.log_history if BEST_BY in record]


def evaluations_since_best(values: Sequence[float]) -> int:
    """How many evaluations came after the first one with the highest value; NaN is never a best, 0 for none at all."""
    best, since = -math.inf, 0
    for value in values:
        since = 0 if value > best else since + 1
        best = max(best, value) if value == value else best
    return since


class TeacherCurriculumCallback(TrainerCallback):
    """Where teachers follow one another: moves on when the student has caught up on the validation problems.

    `grades` gives those of the student's last answers to them, `measure` those of the present teacher's. `evidence`
    gives the success counts of the present teacher, which an anchor that follows the evidence has from then on.
    """

    def __init__(
        self,
        teacher: TeacherCurriculum,
        coefficient: Coefficient,
        grades: Callable[[], list[float | None]],
        measure: Callable[[], list[float | None]],
        evidence: Callable[[], dict[str, SuccessCount]],
    ) -> None:
        self.teacher, self.coefficient = teacher, coefficient
        self.grades, self.measure, self.evidence = grades, measure, evidence

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps or not self.teacher.observe(self.grades(), self.measure):
            return
        if isinstance(self.coefficient, EvidenceCoefficient):
            self.coefficient.teacher_success = self.evidence()
        if state.is_world_process_zero:
            rate = self.teacher.accuracy
            print(f"\nteacher {self.teacher.index + 1} takes over: validation accuracy {rate:.3f}", flush=True)


class CriticWatch(TrainerCallback):
    """Warns once when the critic's mean explained variance over recent steps is negative, again after it recovered."""

    def __init__(self, first_step: int, updates_per_step: int) -> None:
        self.first_update = first_step * updates_per_step
        self.warned = False

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if not logs or "explained_variance" not in logs:
            return
        recent = [r["explained_variance"] for r in state.log_history if self._counts(r)][-EVIDENCE_STEPS:]
        if len(recent) < EVIDENCE_STEPS:
            return
        mean = sum(recent) / len(recent)
        if mean < 0 and not self.warned and state.is_world_process_zero:
            warnings.warn(
                f"explained variance of the critic is {mean:.2f} on average over {len(recent)} steps: it is worse than "
                "a constant and adds noise to the advantages. Raise ppo.critic_warmup_steps or "
                "ppo.value_learning_rate, or try ppo.advantage: group_mean",
                stacklevel=2,
            )
        self.warned = mean < 0

    def _counts(self, record: dict[str, Any]) -> bool:
        value = record.get("explained_variance", math.nan)
        return record["step"] > self.first_update and value == value


class CompletionLog(TrainerCallback):
    """Every `every` PPO steps (None: never) the rollout's completions, of all processes, in output_dir/completions."""

    def __init__(self, every: int | None, updates_per_step: int, rollout: Callable[[], Rollout]) -> None:
        self.every, self.updates, self.rollout = every, updates_per_step, rollout

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any) -> None:
        step, rest = divmod(state.global_step, self.updates)
        if self.every is None or not logs or "loss" not in logs or rest or step % self.every:
            return
        rows = gather_rows(self.rollout(), step)
        if distributed.is_main():
            write_rows(rows, Path(args.output_dir) / "completions", step)
            publish(rows, step, args.report_to)
