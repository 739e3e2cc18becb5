"""A teacher with different prompts than the student: each request uses its prompt and the same completion.

Scores are of completion tokens, whose ids are the student's, so that they line up whatever stands before them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from . import ScoredAtOnce, Scoring, Teacher

if TYPE_CHECKING:
    from ..generation.sampling import Generated, Sampling
    from ..maths.lm_head import HeadWeights
    from . import TeacherScores


class PromptedTeacher(ScoredAtOnce):
    """`inner` under the prompts of `table`: the student's prompt, as token ids, to the teacher's.

    A prompt that is not in the table is an error of the program (KeyError): every problem of the run is.
    """

    def __init__(self, inner: Teacher, table: Mapping[tuple[int, ...], Sequence[int]]) -> None:
        self.inner, self.table = inner, table
        self.hidden_size = inner.hidden_size
        digest = hashlib.sha256(repr(sorted((ours, list(theirs)) for ours, theirs in table.items())).encode())
        self._prompts = digest.hexdigest()[:16]

    @property
    def fingerprint(self) -> str:
        return f"{self.inner.fingerprint}-{self._prompts}"

    @property
    def tokens_scored(self) -> int:
        return self.inner.tokens_scored

    @property
    def lm_head_weight_VE(self) -> HeadWeights | None:
        return self.inner.lm_head_weight_VE

    def scoring(self, tasks: Sequence[str] = (), *, temperature: float = 1.0, top_k: int = 0) -> Scoring:
        return PromptedScoring(self, self.inner.scoring(tasks, temperature=temperature, top_k=top_k))

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        sampling: Sampling,
        batch_size: int = 64,
        *,
        tasks: Sequence[str] = (),
    ) -> list[Generated]:
        return self.inner.generate(self.own_prompts(prompt_ids), sampling, batch_size, tasks=tasks)

    def own_prompts(self, prompt_ids: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        """The teacher's prompt for each of the student's."""
        return [self.table[tuple(ids)] for ids in prompt_ids]

    def close(self) -> None:
        self.inner.close()


class PromptedScoring:
    """A scoring of the inner teacher, whose rows are handed over under its prompts."""

    def __init__(self, teacher: PromptedTeacher, inner: Scoring) -> None:
        self.teacher, self.inner = teacher, inner

    def add(
        self, rows: Sequence[int], prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]]
    ) -> None:
        self.inner.add(rows, self.teacher.own_prompts(prompt_ids), completion_ids)

    def finish(self) -> TeacherScores:
        return self.inner.finish()

    @property
    def metrics(self) -> dict[str, float]:
        return self.inner.metrics
