"""Which training prompts a step draws: groups in proportion to their shares, each in its own shuffled passes.

It may assume to be asked on every process with the same lists; it then answers the same on all of them. It will not
change the problems, and knows nothing of models.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from ..types import Problem
from .token_places import TokenPlaces


def groups_of(problems: Sequence[Problem]) -> dict[str, list[int]]:
    """Indices of the problems by the source they came from, or by their task where they name none."""
    groups: dict[str, list[int]] = {}
    for row, problem in enumerate(problems):
        groups.setdefault(problem.source or problem.task, []).append(row)
    return groups


class SharedPlaces:
    """Gives places to groups one by one, so that each group always has within one place of its share of all so far.

    The group with the earliest deadline among those that have earned a place (Tijdeman 1980, "The chairman assignment
    problem"): for m groups of constant shares no group is ever further than 1 - 1 / (2m - 2) places from its quota.
    Where shares change from step to step, the quota is the sum of those in force, and the distance a little larger.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.credit = dict.fromkeys(self.names, 0.0)
        """Places that a group should have had by its shares, minus those it had."""

    def draw(self, shares: Mapping[str, float], number: int) -> list[str]:
        """The groups of the next `number` places; `shares` sum to 1."""
        return [self._next(shares) for _ in range(number)]

    def _next(self, shares: Mapping[str, float]) -> str:
        if len(self.names) == 1:
            return self.names[0]
        margin = 1 / (2 * len(self.names) - 2)
        for name in self.names:
            self.credit[name] += shares[name]
        earned = [name for name in self.names if shares[name] > 0 and self.credit[name] >= margin - 1e-9]
        candidates = earned or [max(self.names, key=lambda name: self.credit[name])]
        chosen = min(candidates, key=lambda name: (1 - margin - self.credit[name]) / (shares[name] or 1e-12))
        self.credit[chosen] -= 1
        return chosen

    def state(self) -> dict[str, Any]:
        return {"credit": dict(self.credit)}

    def load(self, state: Mapping[str, Any]) -> None:
        self.credit = dict(state["credit"])


class PromptSampler:
    """Draws by fixed shares. Subclasses change the shares, or the choice within a group.

    `shares` by group name are relative; None takes the sizes of the groups. With `tokens`, the expected tokens of each
    problem's row, they are shares of tokens, and `observe_tokens` is told what rows had. All follows from the seed, the
    steps so far and what was observed: the state of a checkpoint.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        number: int,
        seed: int,
        shares: Mapping[str, float] | None = None,
        tokens: Sequence[float] | None = None,
    ) -> None:
        self.problems, self.number, self.seed = problems, number, seed
        self.groups = groups_of(problems)
        given = {name: len(rows) for name, rows in self.groups.items()} if shares is None else shares
        total = sum(given[name] for name in self.groups)
        self.base = {name: given[name] / total for name in self.groups}
        self.places: SharedPlaces | TokenPlaces = SharedPlaces(list(self.groups))
        if tokens is not None:
            means = {name: sum(tokens[row] for row in rows) / len(rows) for name, rows in self.groups.items()}
            self.places = TokenPlaces(means)
        self.drawn = dict.fromkeys(self.groups, 0)
        """Prompts that each group has given so far."""
        self.step = -1
        self._rows: list[int] = []
        self._names: list[str] = []
        self._orders: dict[str, tuple[int, list[int]]] = {}

    def rows(self, step: int) -> list[int]:
        """Indices of the step's prompts, of all processes; asked again for the same step, it answers the same."""
        if step != self.step:
            self.step = step
            self._names = self.places.draw(self.shares(), self.number)
            self._rows = self._within(self._names)
        return self._rows

    def shares(self) -> dict[str, float]:
        """By group; they sum to 1."""
        return self.base

    def observe(self, successes: Sequence[float | None]) -> None:
        """Of the step's completions, prompt after prompt, as many of each; None where nothing was verified."""

    def observe_tokens(self, tokens: Sequence[float]) -> None:
        """Of the step's rows, prompt after prompt, as many of each; only shares of tokens listen."""
        if isinstance(self.places, TokenPlaces):
            size = len(tokens) // self.number
            self.places.settle([sum(tokens[i * size : (i + 1) * size]) for i in range(self.number)])

    def metrics(self) -> dict[str, float]:
        """The part of the step's prompts that each group gave; with shares of tokens also of all tokens before."""
        found = {f"sampling/share/{name}": self._names.count(name) / self.number for name in self.groups}
        if isinstance(self.places, TokenPlaces):
            found |= {f"sampling/tokens/{name}": share for name, share in self.places.token_shares().items()}
        return found

    def by_prompt(self, successes: Sequence[float | None]) -> list[tuple[str, int, list[float]]]:
        """(group, index, verified successes) of each prompt of the step."""
        size = len(successes) // self.number
        parts = [successes[i * size : (i + 1) * size] for i in range(self.number)]
        known = [[value for value in part if value is not None] for part in parts]
        return list(zip(self._names, self._rows, known, strict=True))

    def _within(self, names: Sequence[str]) -> list[int]:
        """One index for each of the names: the next of the group's present pass."""
        found = []
        for name in names:
            epoch, place = divmod(self.drawn[name], len(self.groups[name]))
            found.append(self._order(name, epoch)[place])
            self.drawn[name] += 1
        return found

    def _order(self, name: str, epoch: int) -> list[int]:
        if self._orders.get(name, (-1, []))[0] != epoch:
            order = list(self.groups[name])
            random.Random(f"{self.seed}:prompts:{name}:{epoch}").shuffle(order)
            self._orders[name] = (epoch, order)
        return self._orders[name][1]

    def state_dict(self) -> dict[str, Any]:
        return self.places.state() | {"drawn": dict(self.drawn)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.places.load(state)
        self.drawn, self.step = dict(state["drawn"]), -1
