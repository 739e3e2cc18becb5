"""What a distillation stage trains on: fixed sequences, and which of them each step takes.

Everything is fixed by (seed, step), so a resumed run, or one with another number of processes, sees the same batches.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ..config import DistillConfig
from .schedules import value_at


@dataclass(frozen=True)
class Example:
    """A prompt and the completion to learn from. `completion_ids` ends with EOS unless the text was cut by length: an
    EOS after a cut text would teach the student to stop early."""

    task: str
    prompt_ids: list[int]
    completion_ids: list[int]


@dataclass(frozen=True)
class Row:
    """One row of a step: which example, and whether its completion is the student's own sample."""

    example: int
    on_policy: bool
    seed: int
    """Of the sample, where there is one."""


class ExampleOrder:
    """The rows of every step: one shuffled pass over the examples after another."""

    def __init__(self, num_examples: int, config: DistillConfig, seed: int) -> None:
        if num_examples < 1:
            raise ValueError("no example is left to distil from")
        self.num_examples, self.config, self.seed = num_examples, config, seed
        self._epoch, self._order = -1, list(range(num_examples))

    def rows(self, step: int) -> list[Row]:
        """The rows of optimizer step `step`, of all processes together."""
        size = self.config.batch_size
        rng = random.Random(f"{self.seed}:distill:{step}")
        share = value_at(self.config.on_policy, step / max(1, self.config.num_steps - 1))
        draws = [(rng.random(), rng.getrandbits(62)) for _ in range(size)]
        positions = range(step * size, (step + 1) * size)
        return [Row(self._example(p), u < share, s) for p, (u, s) in zip(positions, draws, strict=True)]

    def _example(self, position: int) -> int:
        epoch, offset = divmod(position, self.num_examples)
        if epoch != self._epoch:
            self._order = list(range(self.num_examples))
            random.Random(f"{self.seed}:distill:epoch:{epoch}").shuffle(self._order)
            self._epoch = epoch
        return self._order[offset]
