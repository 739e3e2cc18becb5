"""What a distillation stage trains on: fixed sequences, and which of them each step takes.

Everything is fixed by (seed, step), so a resumed run, or one with another number of processes, sees the same batches.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..config import DistillConfig, RunConfig
from ..config.sampling import mixture_shares
from ..data.mixture import PromptSampler
from ..types import Problem
from .schedules import value_at


@dataclass(frozen=True)
class Example:
    """A prompt and the completion to learn from. `completion_ids` ends with EOS unless the text was cut by length: an
    EOS after a cut text would teach the student to stop early. `source` is its entry of data.mixture; free text
    (`divergence_only`) carries no cross entropy."""

    task: str
    prompt_ids: list[int]
    completion_ids: list[int]
    source: str = ""
    divergence_only: bool = False

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True)
class Row:
    """One row of a step: which example, and whether its completion is the student's own sample."""

    example: int
    on_policy: bool
    seed: int
    """Of the sample, where there is one."""


class ExampleOrder:
    """The rows of every step: one shuffled pass over the examples after another, or what `by_shares` draws."""

    def __init__(
        self, num_examples: int, config: DistillConfig, seed: int, by_shares: ExampleShares | None = None
    ) -> None:
        if num_examples < 1:
            raise ValueError("no example is left to distil from")
        self.num_examples, self.config, self.seed, self.by_shares = num_examples, config, seed, by_shares
        self._epoch, self._order = -1, list(range(num_examples))

    def rows(self, step: int) -> list[Row]:
        """The rows of optimizer step `step`, of all processes together."""
        size = self.config.batch_size
        rng = random.Random(f"{self.seed}:distill:{step}")
        share = value_at(self.config.on_policy, step / max(1, self.config.num_steps - 1))
        draws = [(rng.random(), rng.getrandbits(62)) for _ in range(size)]
        if self.by_shares is not None:
            chosen = self.by_shares.rows(step)
        else:
            chosen = [self._example(position) for position in range(step * size, (step + 1) * size)]
        return [Row(example, u < share, s) for example, (u, s) in zip(chosen, draws, strict=True)]

    def metrics(self) -> dict[str, float]:
        """What each source of a mixture had so far; nothing without one."""
        return {} if self.by_shares is None else self.by_shares.metrics()

    def _example(self, position: int) -> int:
        epoch, offset = divmod(position, self.num_examples)
        if epoch != self._epoch:
            self._order = list(range(self.num_examples))
            random.Random(f"{self.seed}:distill:epoch:{epoch}").shuffle(self._order)
            self._epoch = epoch
        return self._order[offset]


class ExampleShares:
    """Draws examples so that the sources of a mixture have their shares of rows, or of the tokens of fixed sequences.

    All steps follow from the seed: a resumed stage draws those before it again, without using them.
    """

    def __init__(
        self, examples: Sequence[Example], number: int, seed: int, shares: Mapping[str, float], by_tokens: bool
    ) -> None:
        self.tokens = [float(example.num_tokens) for example in examples]
        problems = [Problem(example.task, "", "", source=example.source) for example in examples]
        self.sampler = PromptSampler(problems, number, seed, shares, self.tokens if by_tokens else None)
        self.drawn: list[list[int]] = []
        self._names = [example.source for example in examples]

    def rows(self, step: int) -> list[int]:
        """Indices of the examples of a step."""
        while len(self.drawn) <= step:
            rows = self.sampler.rows(len(self.drawn))
            self.sampler.observe_tokens([self.tokens[row] for row in rows])
            self.drawn.append(rows)
        return self.drawn[step]

    def metrics(self) -> dict[str, float]:
        """By source, the part of all rows and of all tokens so far."""
        rows = [row for step in self.drawn for row in step]
        total, found = sum(self.tokens[row] for row in rows), {}
        for name in self.sampler.groups if rows else ():
            own = [row for row in rows if self._names[row] == name]
            found[f"sampling/share/{name}"] = len(own) / len(rows)
            found[f"sampling/tokens/{name}"] = sum(self.tokens[row] for row in own) / total
        return found


def example_order(examples: Sequence[Example], settings: DistillConfig, config: RunConfig) -> ExampleOrder:
    """By the shares of data.mixture, where the run has one."""
    data, shares = config.data, None
    if data.mixture and examples:
        given = mixture_shares(data.mixture, data.mixture_preset)
        by_tokens = data.share_by == "tokens"
        shares = ExampleShares(examples, settings.batch_size, config.seed, given, by_tokens)
    return ExampleOrder(len(examples), settings, config.seed, shares)
