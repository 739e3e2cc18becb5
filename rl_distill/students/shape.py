"""What a student keeps of its teacher: the settings, and how they are written on a command line or in a config.

Imports without torch. It knows the names of the criteria, not what they compute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar

from ..config import ConfigError

LAYER_CRITERIA = ("uniform", "block_influence", "cosine", "activation_norm", "learned")
HEAD_CRITERIA = ("activation_norm", "weight_variance")
FFN_CRITERIA = ("activation_norm", "magnitude")
HIDDEN_CRITERIA = ("activation_norm",)
NO_TEXT_NEEDED = ("uniform", "weight_variance", "magnitude")
"""Criteria that look at the weights alone, or at nothing."""


@dataclass(frozen=True)
class Amount:
    """How much is kept: a share of what there is, or a number."""

    share: float | None = None
    count: int | None = None

    def of(self, total: int, what: str) -> int:
        """The number kept out of `total`: a share rounds half up and keeps at least one."""
        if self.share is not None:
            return max(1, math.floor(self.share * total + 0.5))
        assert self.count is not None
        if self.count > total:
            raise ConfigError(f"{what}: {self.count} are to be kept, the teacher has {total}")
        return self.count


@dataclass(frozen=True)
class Choice:
    """A criterion and how much it keeps, or the indices themselves."""

    criterion: str
    amount: Amount = Amount(share=0.5)
    indices: tuple[int, ...] | None = None

    @property
    def needs_text(self) -> bool:
        return self.indices is None and self.criterion not in NO_TEXT_NEEDED


@dataclass(frozen=True)
class StudentShapeConfig:
    """The cut, one field per dimension; None keeps all of it.

    layers: `50%` (evenly spaced), `0,2,5` (indices), or `CRITERION:AMOUNT` with a name of LAYER_CRITERIA.
    heads, ffn, hidden: `AMOUNT`, or `CRITERION:AMOUNT` with a name of HEAD_CRITERIA, FFN_CRITERIA, HIDDEN_CRITERIA.
    vocab: a file of texts (.txt, .jsonl, .parquet); only the tokens that they use are kept, and all single bytes.
    AMOUNT is a share, `50%` or `0.5`, or a number such as 22; a criterion without one keeps half.
    """

    layers: str | None = None
    heads: str | None = None
    ffn: str | None = None
    hidden: str | None = None
    vocab: str | None = None

    CRITERIA: ClassVar[dict[str, tuple[str, ...]]] = {
        "layers": LAYER_CRITERIA,
        "heads": HEAD_CRITERIA,
        "ffn": FFN_CRITERIA,
        "hidden": HIDDEN_CRITERIA,
    }

    def __post_init__(self) -> None:
        self.choices()

    def choices(self) -> dict[str, Choice]:
        """The dimensions that are cut, parsed; raises ConfigError where one cannot be read."""
        return {
            name: parse_choice(name, text, criteria)
            for name, criteria in self.CRITERIA.items()
            if (text := getattr(self, name)) is not None
        }

    def needing_text(self) -> list[str]:
        """The dimensions whose criterion has to see the teacher read something."""
        return [name for name, choice in self.choices().items() if choice.needs_text]


def parse_choice(name: str, text: str, criteria: tuple[str, ...]) -> Choice:
    """A Choice from `50%`, `0.5`, `CRITERION`, `CRITERION:AMOUNT` or, for layers, indices such as `0,2,5`."""
    if "," in text:
        return _indices(name, text)
    criterion, colon, amount = text.rpartition(":")
    if not colon and text in criteria:
        return Choice(text)
    if criterion and criterion not in criteria:
        raise ConfigError(f"{name}: no criterion {criterion!r}; there are {', '.join(criteria)}")
    if not colon and name == "layers" and text.isdigit():
        raise ConfigError(f"layers: is {text} a number or an index? Write uniform:{text}, or indices such as 0,{text}")
    return Choice(criterion or criteria[0], parse_amount(name, amount))


def parse_amount(name: str, text: str) -> Amount:
    """`50%` and `0.5` are shares, `22` is a number."""
    try:
        if text.endswith("%"):
            amount = Amount(share=float(text[:-1]) / 100)
        elif "." in text:
            amount = Amount(share=float(text))
        else:
            amount = Amount(count=int(text))
    except ValueError:
        raise ConfigError(f"{name}: cannot read {text!r}; write a share (50% or 0.5) or a number (22)") from None
    if amount.share is not None and not 0 < amount.share <= 1:
        raise ConfigError(f"{name}: the share kept must be above 0 and at most 100%, got {text}")
    if amount.count is not None and amount.count < 1:
        raise ConfigError(f"{name}: at least 1 must be kept, got {text}")
    return amount


def _indices(name: str, text: str) -> Choice:
    if name != "layers":
        raise ConfigError(f"{name}: indices are for layers only; write a share (50%) or a number, got {text!r}")
    try:
        indices = tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise ConfigError(f"layers: cannot read {text!r}; write indices such as 0,2,5") from None
    if not indices or list(indices) != sorted(set(indices)) or indices[0] < 0:
        raise ConfigError(f"layers: indices must rise from 0 and not repeat, got {text!r}")
    return Choice("indices", indices=indices)


def parse_student_arch(text: str) -> StudentShapeConfig:
    """`teacher:50%`, `teacher:block_influence:22` or `teacher:layers=0,2,5;ffn=0.5` as a shape."""
    word, _, rest = text.partition(":")
    if word != "teacher" or not rest:
        raise ConfigError(f"student_arch: want teacher:50% or teacher:layers=0,2,5;ffn=0.5, got {text!r}")
    if "=" not in rest:
        return StudentShapeConfig(layers=rest)
    known = [field.name for field in fields(StudentShapeConfig)]
    settings: dict[str, str] = {}
    for part in filter(None, rest.split(";")):
        name, equals, value = part.strip().partition("=")
        if name not in known or not equals or not value or name in settings:
            raise ConfigError(f"student_arch: cannot read {part!r}; want NAME=VALUE, once each of {', '.join(known)}")
        settings[name] = value
    return StudentShapeConfig(**settings)
