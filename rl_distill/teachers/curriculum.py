"""A row of teachers, the smallest first: the student moves on to the next when it has caught up with the present one.

Only the present one is held. Which one that is belongs to the run's checkpoint.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..config import ConfigError
from ..generation.sampling import Generated, Sampling
from ..maths.lm_head import HeadWeights
from . import ScoredAtOnce, Scoring, Teacher, TeacherScores


class TeacherCurriculum(ScoredAtOnce):
    """`openers[i]` opens teacher i, of hidden size `widths[i]` (0: it sends no hidden states).

    All look alike from outside: narrower hidden states and heads are filled up with zeros to the widest, which changes
    no logit, so that a critic keeps one width. Where one sends none, none is passed on.
    """

    def __init__(
        self,
        openers: Sequence[Callable[[], Teacher]],
        widths: Sequence[int],
        *,
        switch_gap: float,
    ) -> None:
        self.openers, self.switch_gap = list(openers), switch_gap
        self.hidden_size = max(widths) if min(widths) > 0 else 0
        self.index = 0
        """Of the present teacher."""
        self.grades: dict[int, list[float | None]] = {}
        """By index, of the teachers that were measured: the grades of their answers to the validation problems."""
        self._present: Teacher | None = None
        self._head_VE: Tensor | None = None
        self._scored_before = 0

    @property
    def present(self) -> Teacher:
        """The teacher at work, opened when it is first needed."""
        if self._present is None:
            self._present = self.openers[self.index]()
            self._head_VE = self._widened(self._present.lm_head_weight_VE)
        return self._present

    @property
    def fingerprint(self) -> str:
        return self.present.fingerprint

    @property
    def tokens_scored(self) -> int:
        return self._scored_before + (0 if self._present is None else self._present.tokens_scored)

    @property
    def lm_head_weight_VE(self) -> Tensor | None:
        assert self.present is not None
        return self._head_VE

    @property
    def accuracy(self) -> float:
        """The present teacher's validation accuracy; NaN where it was not measured."""
        known = [grade for grade in self.grades.get(self.index, []) if grade is not None]
        return sum(known) / len(known) if known else math.nan

    def observe(self, student: Sequence[float | None], measure: Callable[[], list[float | None]]) -> bool:
        """Moves on where the present teacher's lead over the student is at most `switch_gap`, by one standard error.

        `student`: the grades of its answers to the validation problems. `measure` gives the present teacher's to the
        same problems, in the same order; it is asked once per teacher. True after a move.
        """
        if self.index + 1 == len(self.openers):
            return False
        self._measure(measure)
        if not upper_lead(self.grades[self.index], student) <= self.switch_gap:
            return False
        self._release()
        self.index += 1
        self._measure(measure)
        return True

    def _measure(self, measure: Callable[[], list[float | None]]) -> None:
        if self.index not in self.grades:
            self.grades[self.index] = measure()

    def _release(self) -> None:
        self._scored_before = self.tokens_scored
        if self._present is not None:
            self._present.close()
        self._present = self._head_VE = None
        gc.collect()  # a model has cycles; the next one needs the memory
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def state_dict(self) -> dict[str, Any]:
        return {"index": self.index, "grades": {str(i): grades for i, grades in self.grades.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with the teacher of the checkpoint; raises ConfigError where the list of teachers is shorter now."""
        if state["index"] >= len(self.openers):
            raise ConfigError(
                f"the checkpoint is at teacher {state['index'] + 1} of teachers, which has {len(self.openers)}"
            )
        if state["index"] != self.index:
            self._release()
        self.index = state["index"]
        self.grades = {int(i): list(grades) for i, grades in state["grades"].items()}

    def scoring(self, tasks: Sequence[str] = (), *, temperature: float = 1.0, top_k: int = 0) -> CurriculumScoring:
        return CurriculumScoring(self, self.present.scoring(tasks, temperature=temperature, top_k=top_k))

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        sampling: Sampling,
        batch_size: int = 64,
        *,
        tasks: Sequence[str] = (),
    ) -> list[Generated]:
        return self.present.generate(prompt_ids, sampling, batch_size, tasks=tasks)

    def close(self) -> None:
        if self._present is not None:
            self._present.close()

    def widened(self, x_NE: Tensor) -> Tensor:
        """Zeros up to the widest teacher's width; nothing of it where a teacher sends no hidden states."""
        if self.hidden_size == 0:
            return x_NE[:, :0]
        return torch.nn.functional.pad(x_NE, (0, self.hidden_size - x_NE.shape[1]))

    def _widened(self, head_VE: HeadWeights | None) -> Tensor | None:
        if not isinstance(head_VE, Tensor) or self.hidden_size == 0:
            return None
        return head_VE if head_VE.shape[1] == self.hidden_size else self.widened(head_VE.detach())


def upper_lead(teacher: Sequence[float | None], student: Sequence[float | None]) -> float:
    """The teacher's lead in accuracy on the problems that both have a grade for, plus one standard error.

    Paired: only problems on which the two differ add to the error. NaN without such problems.
    """
    leads = [t - s for t, s in zip(teacher, student, strict=True) if t is not None and s is not None]
    if not leads:
        return math.nan
    mean = sum(leads) / len(leads)
    return mean + math.sqrt(sum((lead - mean) ** 2 for lead in leads)) / len(leads)


class CurriculumScoring:
    """That of the present teacher, in the common width."""

    def __init__(self, teacher: TeacherCurriculum, scoring: Scoring) -> None:
        self.teacher, self.inner = teacher, scoring
        self.index = teacher.index

    def add(
        self, rows: Sequence[int], prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]]
    ) -> None:
        self.inner.add(rows, prompt_ids, completion_ids)

    def finish(self) -> TeacherScores:
        scores = self.inner.finish()
        parts = (scores.logprobs_N, scores.entropy_N, scores.top_ids_NK, scores.top_logprobs_NK)
        return TeacherScores(self.teacher.widened(scores.hidden_NE), *parts)

    @property
    def metrics(self) -> dict[str, float]:
        return self.inner.metrics | {"teacher": float(self.index + 1)}
