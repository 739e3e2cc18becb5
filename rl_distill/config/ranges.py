"""Which numbers a setting may be: stated once beside the field, read by the check at parse, `--help` and the docs.

It may assume dataclasses whose numeric fields are made by `ranged`. It knows nothing of what the settings mean.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

INTERVAL = re.compile(r"([\[(])(-?[\d.]+), (-?[\d.]+|inf)([\])])")


@dataclass(frozen=True)
class Interval:
    """The finite numbers from `low` to `high`, either end inside or not."""

    low: float
    high: float
    with_low: bool
    with_high: bool

    @classmethod
    def parse(cls, text: str) -> Interval:
        """That of the mathematical notation: "[0, 1)" is 0 or more and below 1, "(0, inf)" is above 0."""
        match = INTERVAL.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no interval such as [0, 1) or (0, inf)")
        opening, low, high, closing = match.groups()
        return cls(float(low), float(high), opening == "[", closing == "]")

    def __contains__(self, number: float) -> bool:
        """False for NaN and for infinities."""
        above = number >= self.low if self.with_low else number > self.low
        below = number <= self.high if self.with_high else number < self.high
        return above and below and -math.inf < number < math.inf

    def __str__(self) -> str:
        low = f"{'at least' if self.with_low else 'above'} {self.low:.10g}"
        if math.isinf(self.high):
            return low
        return f"{low} and {'at most' if self.with_high else 'below'} {self.high:.10g}"


def ranged(default: float | None, interval: str) -> Any:
    """A dataclass field with this default and range; a default of None may always be chosen."""
    return dataclasses.field(default=default, metadata={"range": Interval.parse(interval)})


def range_of(field: dataclasses.Field[Any]) -> Interval | None:
    """The field's range; None for one that is no number."""
    return field.metadata.get("range")
