"""Teachers: one protocol, several placements.

A teacher scores the student's completions (hidden states, log-probabilities, entropy of real completion tokens) and
may write texts of its own. It never trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from ..generation import Generated, Sampling


@dataclass(frozen=True)
class TeacherScores:
    """Row n is about one completion token, rows in the order of the completions: hidden state that predicts it,
    log-probability the teacher gives it, entropy of the teacher's distribution there (both at the rollout temperature).
    """

    hidden_NE: Tensor
    logprobs_N: Tensor
    entropy_N: Tensor
    top_ids_NK: Tensor | None = None
    """The teacher's K likeliest ids and their log-probabilities, where `Teacher.top_k` asks for them."""
    top_logprobs_NK: Tensor | None = None


class Teacher(Protocol):
    """What a run needs of a teacher."""

    hidden_size: int
    fingerprint: str
    """Identifies the weights, for caches."""
    temperature: float
    """That of the rollouts: the collector sets it where it follows a schedule."""
    top_k: int
    """How many of its likeliest ids the teacher reports per token; 0 for none."""

    @property
    def lm_head_weight_VE(self) -> Tensor:
        """For the exact KL on the student's side; never trained."""
        ...

    def score(self, prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]]) -> TeacherScores: ...

    def generate(self, prompt_ids: Sequence[Sequence[int]], sampling: Sampling) -> list[Generated]: ...
