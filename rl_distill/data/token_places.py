"""Places of a step given to groups so that their shares hold by tokens, whatever the lengths of their rows.

What a row costs is known once it was drawn, and, where a model answers it, once it was answered. Until then the mean
of its group stands for it; the difference is settled afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class TokenPlaces:
    """Gives each place to the group that is owed most tokens.

    What a group is owed is the sum over all tokens so far of its share at that time, minus the tokens it has had. The
    largest debt stays within some rows' length, so the shares hold the better the more tokens were drawn.
    """

    def __init__(self, prior: Mapping[str, float]) -> None:
        """`prior`: by group, the expected tokens of a row before any was settled."""
        self.names = list(prior)
        self.prior = dict(prior)
        self.credit = dict.fromkeys(self.names, 0.0)
        """Tokens that each group is owed."""
        self.seen = {name: [0.0, 0.0] for name in self.names}
        """By group: [tokens, rows] that were settled."""
        self._drawn: tuple[Mapping[str, float], list[str]] = ({}, [])

    def expected(self, name: str) -> float:
        tokens, rows = self.seen[name]
        return tokens / rows if rows else self.prior[name]

    def draw(self, shares: Mapping[str, float], number: int) -> list[str]:
        """The groups of the next `number` places; `shares` sum to 1."""
        owed, found = dict(self.credit), []
        able = [name for name in self.names if shares[name] > 0]
        for _ in range(number):
            chosen = max(able, key=lambda name: (owed[name], shares[name]))
            cost = self.expected(chosen)
            for name in self.names:
                owed[name] += shares[name] * cost
            owed[chosen] -= cost
            found.append(chosen)
        self._drawn = shares, found
        return found

    def settle(self, tokens: Sequence[float]) -> None:
        """What the places of the last draw have cost, in their order."""
        shares, names = self._drawn
        total = sum(tokens)
        for name, cost in zip(names, tokens, strict=True):
            self.credit[name] -= cost
            self.seen[name] = [self.seen[name][0] + cost, self.seen[name][1] + 1]
        for name in self.names if total else ():
            self.credit[name] += shares[name] * total
        self._drawn = shares, []

    def token_shares(self) -> dict[str, float]:
        """The part of all settled tokens that each group had."""
        total = sum(tokens for tokens, _ in self.seen.values())
        return {name: tokens / total if total else 0.0 for name, (tokens, _) in self.seen.items()}

    def state(self) -> dict[str, Any]:
        return {"credit": dict(self.credit), "seen": {name: list(found) for name, found in self.seen.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        self.credit, self.seen = dict(state["credit"]), {name: list(found) for name, found in state["seen"].items()}
