"""One scored candidate answer, and how it becomes a row of the model: what the other modules hand to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reward_models.learned_model import Encoded, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Example:
    """One candidate answer. `score` is the blended reward, `verdict` 1 right, 0 wrong, None not checked.

    `source` is "teacher", "student" or a kind of probe; a teacher's row has `candidate` == `teacher_output`.
    `teacher_output` is None where the teacher only scores. `readings`: [log-probability, entropy] per candidate token.
    """

    key: str
    task: str
    prompt: str
    teacher_output: str | None
    candidate: str
    source: str
    score: float
    verdict: float | None
    readings: list[list[float]] | None = None

    def encoded(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        *,
        with_teacher: bool = True,
        with_readings: bool = True,
    ) -> Encoded:
        """The row, with what it has of the teacher where that is to be shown."""
        readings = [(row[0], row[1]) for row in self.readings] if with_readings and self.readings else None
        teacher_output = self.teacher_output if with_teacher else None
        return encode(tokenizer, self.prompt, teacher_output, self.candidate, max_length, readings)
