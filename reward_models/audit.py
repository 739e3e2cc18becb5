"""Looks for reward hacking: does a cheap proxy (similarity, a trained model) still agree with the verified task check?

It may assume the scores of all processes for one batch; it draws a sample of them.
It will not change a score: it logs, and warns when a proxy rises while the check falls.
"""

import math
import random
import warnings
from collections import deque
from dataclasses import dataclass
from typing import Any

from .base import RewardSpec
from .normalize import mean_and_std
from .registry import VERIFYING_REWARDS

PROXY_FUNCTIONS = ("bleu", "rouge_l", "teacher_likelihood", "learned")


@dataclass(frozen=True)
class AuditConfig:
    """How the audit looks. `proxies` and `check` are names of parts; by default the built-in ones are recognised.

    sample: completions per batch. window: audits that are compared with as many before them. high: share of the sample
    that counts as "high proxy". A warning needs both means to have moved by `sigmas` standard errors, in opposite ways.
    """

    proxies: tuple[str, ...] | None = None
    check: str | None = None
    sample: int = 64
    window: int = 20
    high: float = 0.25
    sigmas: float = 2.0


class Audit:
    """Correlation of each proxy with the check, the rate of "high proxy, wrong answer", and the trend of both."""

    def __init__(self, specs: list[RewardSpec], settings: AuditConfig) -> None:
        self.settings = settings
        labels = [spec.label for spec in specs]
        by_default = [spec.label for spec in specs if spec.fn in PROXY_FUNCTIONS]
        self.proxies = list(settings.proxies) if settings.proxies is not None else by_default
        checks = [spec.label for fn in VERIFYING_REWARDS for spec in specs if spec.fn == fn]
        self.check = settings.check or (checks[0] if checks else None)
        for name in [*self.proxies, *([self.check] if self.check else [])]:
            if name not in labels:
                raise ValueError(f"rewards: the audit names {name!r}, but the parts are {', '.join(labels)}")
        self._history: dict[str, deque[tuple[float, float]]] = {
            name: deque(maxlen=2 * settings.window) for name in self.proxies
        }

    def look(self, parts: dict[str, list[float | None]], rng: random.Random) -> dict[str, float]:
        """Metrics `audit/<name>/correlation` (Spearman), `/high_but_wrong` (rate) and `/hacking` (0 or 1)."""
        if self.check is None:
            return {}
        metrics = {}
        for name in self.proxies:
            both = zip(parts[name], parts[self.check], strict=True)
            pairs = [(proxy, check) for proxy, check in both if proxy is not None and check is not None]
            if len(pairs) > self.settings.sample:
                pairs = rng.sample(pairs, self.settings.sample)
            if len(pairs) < 2:
                continue
            measures = {key: value for key, value in self._measures(name, pairs).items() if not math.isnan(value)}
            metrics.update({f"audit/{name}/{key}": value for key, value in measures.items()})
        return metrics

    def _measures(self, name: str, pairs: list[tuple[float, float]]) -> dict[str, float]:
        proxy, check = zip(*pairs, strict=True)
        self._history[name].append((math.fsum(proxy) / len(proxy), math.fsum(check) / len(check)))
        hacking = self._diverges(name)
        if hacking:
            warnings.warn(
                f"reward hacking? over the last {self.settings.window} batches the reward {name!r} rose while the "
                f"check {self.check!r} fell; look at completions with a high {name!r} and a failed check",
                stacklevel=2,
            )
        return {
            "correlation": spearman(proxy, check),
            "high_but_wrong": high_but_wrong(pairs, self.settings.high),
            "hacking": float(hacking),
        }

    def _diverges(self, name: str) -> bool:
        history, window = list(self._history[name]), self.settings.window
        if len(history) < 2 * window:
            return False
        proxy_shift = _shift_in_errors([p for p, _ in history], window)
        check_shift = _shift_in_errors([c for _, c in history], window)
        return proxy_shift > self.settings.sigmas and check_shift < -self.settings.sigmas

    def state_dict(self) -> dict[str, Any]:
        return {name: [list(pair) for pair in history] for name, history in self._history.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, history in state.items():
            if name in self._history:
                self._history[name] = deque((tuple(pair) for pair in history), maxlen=2 * self.settings.window)


def spearman(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; nan if either side is constant."""
    return _pearson(_mean_ranks(first), _mean_ranks(second))


def high_but_wrong(pairs: list[tuple[float, float]], share: float) -> float:
    """Among the `share` of the pairs with the highest proxy (ties included), the rate of a check below one half."""
    ranked = sorted((proxy for proxy, _ in pairs), reverse=True)
    threshold = ranked[max(0, math.ceil(share * len(ranked)) - 1)]
    high = [check for proxy, check in pairs if proxy >= threshold]
    return sum(check < 0.5 for check in high) / len(high)


def _mean_ranks(values: tuple[float, ...]) -> list[float]:
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values)):
        places.setdefault(value, []).append(place)
    return [sum(places[value]) / len(places[value]) for value in values]


def _pearson(first: list[float], second: list[float]) -> float:
    (mean_a, std_a), (mean_b, std_b) = mean_and_std(first), mean_and_std(second)
    if not std_a or not std_b:
        return math.nan
    covariance = math.fsum((a - mean_a) * (b - mean_b) for a, b in zip(first, second, strict=True)) / len(first)
    return covariance / (std_a * std_b)


def _shift_in_errors(values: list[float], window: int) -> float:
    """By how many standard errors the mean of the last `window` values lies above that of the `window` before."""
    (old_mean, old_std), (new_mean, new_std) = mean_and_std(values[:window]), mean_and_std(values[window:])
    error = math.sqrt((old_std**2 + new_std**2) / window)
    if error == 0.0:
        return math.copysign(math.inf, new_mean - old_mean) if new_mean != old_mean else 0.0
    return (new_mean - old_mean) / error
