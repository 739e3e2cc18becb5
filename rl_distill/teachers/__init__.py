"""Teachers: one protocol, several placements; several teachers are one that asks them (several.py, adaptive.py).

A teacher scores the student's completions (hidden states, log-probabilities, entropy of real completion tokens) and
may write texts of its own. It never trains.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from ..generation.sampling import Generated, Sampling
    from ..maths.lm_head import HeadWeights


@dataclass(frozen=True)
class TeacherScores:
    """Row n is about one completion token, rows in the order of the completions: hidden state that predicts it,
    log-probability the teacher gives it, entropy of the teacher's distribution there (both at the asked temperature).
    """

    hidden_NE: Tensor
    logprobs_N: Tensor
    entropy_N: Tensor
    top_ids_NK: Tensor | None = None
    """The teacher's K likeliest ids and their log-probabilities, where `top_k` asks for them."""
    top_logprobs_NK: Tensor | None = None


class Scoring(Protocol):
    """The scoring of one rollout, whose rows are handed over as they are finished and may be scored meanwhile."""

    def add(
        self, rows: Sequence[int], prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]]
    ) -> None:
        """Hands over rows of the rollout; `rows` are their numbers, each to be given once."""
        ...

    def finish(self) -> TeacherScores:
        """The scores of all rows in the order of their numbers."""
        ...

    @property
    def metrics(self) -> dict[str, float]:
        """What the scoring cost, over all processes, once it is finished."""
        ...


class Teacher(Protocol):
    """What a run needs from a teacher, in any placement."""

    hidden_size: int

    @property
    def fingerprint(self) -> str:
        """Identifies the weights, for caches."""
        ...

    @property
    def tokens_scored(self) -> int:
        """Prompt and completion tokens handed over for scoring by this process so far."""
        ...

    @property
    def lm_head_weight_VE(self) -> HeadWeights | None:
        """For the exact KL on the student's side; never trained. None: there is no exact KL to this teacher."""
        ...

    def score(
        self,
        prompt_ids: Sequence[Sequence[int]],
        completion_ids: Sequence[Sequence[int]],
        *,
        tasks: Sequence[str] = (),
        temperature: float = 1.0,
        top_k: int = 0,
    ) -> TeacherScores:
        """TeacherScores of every completion token, in the order of the completions.

        `tasks`, here and below: the task of each row, which a teacher reads that is several. `temperature` is that of
        the teacher's distribution, the sampling temperature of a rollout; `top_k` how many of its likeliest ids it
        reports per token.
        """
        ...

    def scoring(self, tasks: Sequence[str] = (), *, temperature: float = 1.0, top_k: int = 0) -> Scoring:
        """A new, empty scoring of a rollout with rows of these tasks. One at a time."""
        ...

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        sampling: Sampling,
        batch_size: int = 64,
        *,
        tasks: Sequence[str] = (),
    ) -> list[Generated]: ...

    def close(self) -> None:
        """Ends what the teacher keeps running; to be called by all processes after its last request."""
        ...


@dataclass
class CollectedRows:
    """Rows of a rollout as they were handed over."""

    rows: list[int] = field(default_factory=list)
    prompt_ids: list[Sequence[int]] = field(default_factory=list)
    completion_ids: list[Sequence[int]] = field(default_factory=list)

    def add(
        self, rows: Sequence[int], prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]]
    ) -> None:
        self.rows += rows
        self.prompt_ids += prompt_ids
        self.completion_ids += completion_ids


class ScoredAtOnce(ABC):
    """`Teacher.score` by the teacher's own `scoring`: all rows are added, then finished."""

    @abstractmethod
    def scoring(self, tasks: Sequence[str] = (), *, temperature: float = 1.0, top_k: int = 0) -> Scoring:
        """See Teacher.scoring."""

    def score(
        self,
        prompt_ids: Sequence[Sequence[int]],
        completion_ids: Sequence[Sequence[int]],
        *,
        tasks: Sequence[str] = (),
        temperature: float = 1.0,
        top_k: int = 0,
    ) -> TeacherScores:
        """TeacherScores of every completion token, in the order of the completions."""
        scoring = self.scoring(tasks, temperature=temperature, top_k=top_k)
        scoring.add(range(len(prompt_ids)), prompt_ids, completion_ids)
        return scoring.finish()
