"""What a reward function is, how a run asks for one, and the errors and small text helpers that all of them share.

It may assume plain Python data: no torch, no tokenizer, no configuration file.
It will not call a function (calling.py), nor add scores up (blend.py).
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from .registry import nearest, resolve, validate

__all__ = [
    "RewardError",
    "RewardFunction",
    "RewardSpec",
    "Unscored",
    "WeightSchedule",
    "number_or_none",
    "numbers_or_none",
    "resolve",
    "text_of",
    "validate",
]

NORMALIZATIONS = ("none", "running", "rank")
ON_ERROR = ("raise", "skip")
DEFAULT_TIME_LIMIT_SECONDS = 300.0

Messages = list[dict[str, Any]]


class RewardFunction(Protocol):
    """One score per completion; the convention of TRL's GRPOTrainer 1.16.

    None says that the function does not apply to a completion, `Unscored` that it could not score it. Called with
    keywords only: `prompts`, `completions` (texts, or messages for chat), `completion_ids`, every dataset column (each
    a list as long as the batch), `trainer_state`, `log_extra(column, values)`, `log_metric(name, value)`. It may be
    `async def`.
    """

    def __call__(
        self, *, prompts: list, completions: list, completion_ids: list[list[int]], **columns: Any
    ) -> list[float | None]: ...


class Unscored(float):
    """What a reward function returns for a completion that it should have scored and could not: NaN with a reason.

    A row with such a part has no total at all: adding up the other parts would train trouble as a wrong answer. (None,
    in contrast, leaves a part out that does not apply to the row.) Being NaN, it means None to TRL's GRPOTrainer.
    """

    reason: str

    def __new__(cls, reason: str) -> "Unscored":
        """reason: a short word that metrics are counted under, such as `outage`; ValueError for anything else."""
        if re.fullmatch(r"[a-z][a-z0-9_]{0,39}", reason) is None:
            raise ValueError(f"the reason of Unscored is a word in lower case such as 'outage', not {reason!r}")
        value = super().__new__(cls, math.nan)
        value.reason = reason
        return value

    def __repr__(self) -> str:
        return f"Unscored({self.reason!r})"

    def __reduce__(self) -> tuple[type["Unscored"], tuple[str]]:
        return Unscored, (self.reason,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unscored) and other.reason == self.reason

    def __hash__(self) -> int:
        return hash(self.reason)


def number_or_none(score: float | None) -> float | None:
    """The score, None where there is none for whatever reason."""
    return None if isinstance(score, Unscored) else score


def numbers_or_none(scores: Iterable[float | None]) -> list[float | None]:
    """`number_or_none` of each."""
    return [number_or_none(score) for score in scores]


class RewardError(RuntimeError):
    """A reward function failed: it raised, ran out of time, or returned something that is not a score."""


@dataclass(frozen=True)
class WeightSchedule:
    """A weight that changes once during the run; fractions are of the run's optimisation steps, in 0..1.

    It stays at `start` until the fraction `until`, then moves linearly to `end` over the further fraction `ramp`
    (0: at once). `{start: 0, end: 0.3, until: 0.2}` leaves a task check out of the first 20 % of the steps.
    """

    start: float
    end: float
    until: float
    ramp: float = 0.0

    def __post_init__(self) -> None:
        _check_number("weight.start", self.start)
        _check_number("weight.end", self.end)
        for name in ("until", "ramp"):
            if not 0.0 <= _check_number(f"weight.{name}", getattr(self, name)) <= 1.0:
                raise ValueError(f"weight.{name} is a fraction of the run between 0 and 1, not {getattr(self, name)}")

    def at(self, progress: float) -> float:
        """The weight when the fraction `progress` of the run is done."""
        if progress < self.until:
            return self.start
        if progress >= self.until + self.ramp:
            return self.end
        return self.start + (self.end - self.start) * (progress - self.until) / self.ramp


@dataclass(frozen=True)
class RewardSpec:
    """One line of a run's `rewards:` list.

    fn: short name, `pkg.mod:fn` or `./file.py:fn`. weight: taken as it stands, never renormalised; 0 logs only.
    kwargs: handed to the function on every call. name: under which it is logged (default: the function's own).
    time_limit: seconds for one batch, None for no limit. on_error: "skip" turns a failure into Unscored and counts it.
    fallback_for: the name of another entry; this one adds to the total only where that one does not apply (None).
    """

    fn: str
    weight: float | WeightSchedule = 1.0
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    normalize: str = "none"
    time_limit: float | None = DEFAULT_TIME_LIMIT_SECONDS
    on_error: str = "raise"
    fallback_for: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.fn, str) or not self.fn:
            raise ValueError(f"rewards: fn must be the name of a function, not {self.fn!r}")
        if not isinstance(self.weight, WeightSchedule):
            _check_number(f"rewards: weight of {self.fn}", self.weight)
        if not isinstance(self.kwargs, Mapping):
            raise ValueError(f"rewards: kwargs of {self.fn} must be a mapping, not {self.kwargs!r}")
        _check_choice(f"rewards: normalize of {self.fn}", self.normalize, NORMALIZATIONS)
        _check_choice(f"rewards: on_error of {self.fn}", self.on_error, ON_ERROR)
        if self.time_limit is not None and _check_number(f"rewards: time_limit of {self.fn}", self.time_limit) <= 0:
            raise ValueError(f"rewards: time_limit of {self.fn} must be positive seconds or null")

    @classmethod
    def from_config(cls, entry: Mapping[str, Any]) -> "RewardSpec":
        """The spec that a configuration entry describes; ValueError names a wrong key and the nearest right one."""
        if not isinstance(entry, Mapping):
            raise ValueError(
                f"rewards: each entry is a mapping such as {{fn: math_answer, weight: 0.3}}, not {entry!r}"
            )
        known = [f.name for f in fields(cls)]
        for key in entry:
            if key not in known:
                raise ValueError(
                    f"rewards: unknown key {key!r} in the entry for {entry.get('fn')!r}{nearest(str(key), known)}; "
                    f"keys are {', '.join(known)} (arguments of the function itself go under kwargs)"
                )
        if "fn" not in entry:
            raise ValueError(f"rewards: an entry lacks its fn: {dict(entry)!r}")
        values = dict(entry)
        if isinstance(values.get("weight"), Mapping):
            values["weight"] = _schedule_from_config(values["fn"], values["weight"])
        if values.get("kwargs", {}) is None:
            values["kwargs"] = {}
        return cls(**values)

    @property
    def label(self) -> str:
        """The name under which the function's scores are kept and logged."""
        return self.name or self.fn.rpartition(":")[2]

    def weight_at(self, progress: float) -> float:
        """The weight when the fraction `progress` of the run is done."""
        return self.weight.at(progress) if isinstance(self.weight, WeightSchedule) else self.weight


def text_of(message: str | Messages) -> str:
    """The text of a completion: itself, or the content of the last message when it came as messages."""
    if isinstance(message, str):
        return message
    if not message:
        return ""
    content = message[-1].get("content")
    if isinstance(content, list):  # parts, as multimodal chat templates have them
        return "".join(part.get("text", "") for part in content if isinstance(part, Mapping))
    return content or ""


def _schedule_from_config(fn: str, entry: Mapping[str, Any]) -> WeightSchedule:
    known = [f.name for f in fields(WeightSchedule)]
    for key in entry:
        if key not in known:
            raise ValueError(f"rewards: unknown key {key!r} in the weight of {fn}{nearest(str(key), known)}")
    missing = [key for key in known[:3] if key not in entry]
    if missing:
        raise ValueError(f"rewards: the weight of {fn} lacks {', '.join(missing)}")
    return WeightSchedule(**entry)


def _check_number(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{what} must be a finite number, not {value!r}")
    return value


def _check_choice(what: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(choices)}, not {value!r}{nearest(str(value), choices)}")
