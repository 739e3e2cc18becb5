"""Runs all reward functions of a run on a batch, beside the teacher's forward pass, and adds their scores up.

It may assume that every process calls it equally often, with `gather` (if given) collecting over all of them.
It will not renormalise weights. A part that does not apply to a row is left out of its total; a row with a part that
could not be scored has no total.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from .audit import Audit, AuditConfig
from .base import RewardError, RewardSpec, Unscored, numbers_or_none
from .calling import AsyncLoop, BoundReward, CallResult, PendingCall
from .normalize import RunningMoments, mean_and_std, rank
from .registry import nearest, validate

Gather = Callable[[list], list]  # the lists of all processes, joined in rank order


@dataclass
class BlendedScores:
    """The scores of one batch.

    total: weighted sum of the scored parts; None where no part that counts applied, and where one could not be scored:
    `unscored` then has the reason, as "<name>: <reason>". parts: raw scores by name, None where there is none.
    metrics: `rewards/<name>/mean`, `/std` (population), `/weight`, `/seconds`, and as fractions of the batch
    `/unscored` (without a score for any reason), `/unscored_<reason>` (could not be scored) and `/errors` (the function
    failed); `rewards/total/unscored` counts rows that should have a total. Means and fractions are over all processes
    if `gather` is given. columns: from log_extra, this process.
    """

    total: list[float | None]
    parts: dict[str, list[float | None]]
    metrics: dict[str, float] = field(default_factory=dict)
    columns: dict[str, list] = field(default_factory=dict)
    unscored: list[str | None] = field(default_factory=list)


class RewardBlend:
    """Weighted sum of reward functions: total = sum of weight x (normalised) score over the parts that were scored."""

    def __init__(
        self,
        specs: Iterable[RewardSpec],
        *,
        gather: Gather | None = None,
        seed: int = 0,
        audit: AuditConfig | None = None,
    ) -> None:
        self.specs = list(specs)
        if not self.specs:
            raise ValueError("rewards: the list is empty; a run needs at least one reward function")
        validate(self.specs)
        self._functions = {spec.label: BoundReward(spec) for spec in self.specs}
        self._gather = gather
        self._seed = seed
        self._progress = 0.0
        self._num_batches = 0
        self._moments = {spec.label: RunningMoments() for spec in self.specs if spec.normalize == "running"}
        self._audit = Audit(self.specs, audit or AuditConfig())
        self._loop = AsyncLoop()

    def start(
        self,
        *,
        prompts: list,
        completions: list,
        completion_ids: list[list[int]],
        columns: dict[str, list],
        trainer_state: Any = None,
    ) -> "PendingScores":
        """Begin to score in background threads; functions that name a missing `teacher_*` column wait for `finish`."""
        batch = {**columns, "prompts": prompts, "completions": completions, "completion_ids": completion_ids}
        _check_lengths(batch)
        return PendingScores(self, batch, trainer_state)

    def score(
        self,
        *,
        prompts: list,
        completions: list,
        completion_ids: list[list[int]],
        columns: dict[str, list],
        trainer_state: Any = None,
        teacher_columns: dict[str, list] | None = None,
    ) -> BlendedScores:
        """`start` and `finish` in one call."""
        pending = self.start(
            prompts=prompts,
            completions=completions,
            completion_ids=completion_ids,
            columns={**columns, **(teacher_columns or {})},
            trainer_state=trainer_state,
        )
        return pending.finish(None)

    def set_progress(self, fraction: float) -> None:
        """Tell how much of the run is done (0..1), for weights with a schedule."""
        self._progress = min(1.0, max(0.0, float(fraction)))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to continue exactly: running moments, progress, the audit's history."""
        moments = {name: [m.count, m.mean, m.squares] for name, m in self._moments.items()}
        audit = self._audit.state_dict()
        return {"progress": self._progress, "num_batches": self._num_batches, "moments": moments, "audit": audit}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of `state_dict`; parts that the state does not know start anew."""
        self._progress = state["progress"]
        self._num_batches = state["num_batches"]
        for name, (count, mean, squares) in state["moments"].items():
            if name in self._moments:
                self._moments[name] = RunningMoments(count, mean, squares)
        self._audit.load_state_dict(state["audit"])

    def close(self) -> None:
        """End the blend's event loop. Processes of graders and sandboxes are shared and end with the program."""
        self._loop.close()

    def __enter__(self) -> "RewardBlend":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _collect(self, calls: dict[str, PendingCall]) -> dict[str, CallResult]:
        """Every function's result. With several processes all of them raise when one does: none waits forever."""
        results, error = {}, None
        for name, call in calls.items():
            try:
                results[name] = call.result()
            except RewardError as raised:
                error = error or raised
        failed_elsewhere = self._gather is not None and any(self._gather([1.0 if error else 0.0]))
        if error is not None:
            raise error
        if failed_elsewhere:
            raise RewardError("a reward function failed in another process; its error is told there")
        return results

    def _pooled(self, items: list) -> list:
        return items if self._gather is None else self._gather(items)

    def _normalized(
        self, spec: RewardSpec, scores: list[float | None], pooled: list[float | None]
    ) -> list[float | None]:
        if spec.normalize == "rank":
            return rank(scores, pooled)
        if spec.normalize == "running":
            moments = self._moments[spec.label]
            moments.update([s for s in pooled if s is not None])
            return [None if s is None else moments.standardize(s) for s in scores]
        return scores

    def _blend(self, results: dict[str, CallResult], size: int) -> BlendedScores:
        blended = BlendedScores([None] * size, {}, unscored=[None] * size)
        everywhere = {}
        for spec in self.specs:
            name, result = spec.label, results[spec.label]
            said = _Said.together(self._pooled([_Said.by(result)]))
            everywhere[name] = numbers_or_none(said.scores)
            blended.parts[name] = numbers_or_none(result.scores)
            normalized = self._normalized(spec, blended.parts[name], everywhere[name])
            weight = spec.weight_at(self._progress)
            if spec.fallback_for is not None:
                applies = [score is None for score in results[spec.fallback_for].scores]
                normalized = [score if a else None for score, a in zip(normalized, applies, strict=True)]
            if weight != 0.0:
                blended.total = [_added(t, s, weight) for t, s in zip(blended.total, normalized, strict=True)]
                blended.unscored = [
                    reason or (f"{name}: {score.reason}" if isinstance(score, Unscored) else None)
                    for reason, score in zip(blended.unscored, result.scores, strict=True)
                ]
            blended.columns.update(result.columns)
            blended.metrics.update(_part_metrics(name, said, weight, result.seconds))
        blended.total = [t if u is None else None for t, u in zip(blended.total, blended.unscored, strict=True)]
        blended.metrics.update(_total_metrics(self._pooled(list(zip(blended.total, blended.unscored, strict=True)))))
        sampler = random.Random(f"{self._seed}/{self._num_batches}")  # a string: the same in every process
        blended.metrics.update(self._audit.look(everywhere, sampler))
        self._num_batches += 1
        return blended


class PendingScores:
    """A batch whose scoring is under way."""

    def __init__(self, blend: RewardBlend, batch: dict[str, list], trainer_state: Any) -> None:
        self._blend, self._batch, self._trainer_state = blend, batch, trainer_state
        functions = blend._functions
        self._waiting = [name for name, function in functions.items() if function.waits_for_teacher(batch)]
        self._calls = {name: self._start(name, batch) for name in functions if name not in self._waiting}

    def finish(self, teacher_columns: dict[str, list] | None = None) -> BlendedScores:
        """Run what waited for the teacher, wait for the rest, and blend; RewardError if a function failed."""
        batch = {**self._batch, **(teacher_columns or {})}
        _check_lengths(batch)
        self._calls.update({name: self._start(name, batch) for name in self._waiting})
        self._waiting = []
        results = self._blend._collect(self._calls)
        return self._blend._blend(results, len(batch["completions"]))

    def _start(self, name: str, batch: dict[str, list]) -> PendingCall:
        return self._blend._functions[name].start({**batch, "trainer_state": self._trainer_state}, self._blend._loop)


def _added(total: float | None, score: float | None, weight: float) -> float | None:
    if score is None:
        return total
    return weight * score + (total or 0.0)


@dataclass(frozen=True)
class _Said:
    """What one function said about the batch: of this process, or of all of them put together."""

    scores: list[float | None]
    num_failures: int
    metrics: dict[str, tuple[float, int]]  # (sum, number of values)

    @classmethod
    def by(cls, result: CallResult) -> "_Said":
        sums = {name: (math.fsum(values), len(values)) for name, values in result.metrics.items()}
        return cls(result.scores, len(result.failures), sums)

    @classmethod
    def together(cls, parts: "Iterable[_Said]") -> "_Said":
        scores: list[float | None] = []
        metrics: dict[str, tuple[float, int]] = {}
        num_failures = 0
        for part in parts:
            scores += part.scores
            num_failures += part.num_failures
            for name, (total, count) in part.metrics.items():
                before = metrics.get(name, (0.0, 0))
                metrics[name] = before[0] + total, before[1] + count
        return cls(scores, num_failures, metrics)


def _part_metrics(name: str, said: _Said, weight: float, seconds: float) -> dict[str, float]:
    scored = [score for score in numbers_or_none(said.scores) if score is not None]
    size = max(1, len(said.scores))
    mean, std = mean_and_std(scored)
    reasons = Counter(score.reason for score in said.scores if isinstance(score, Unscored))
    metrics = {
        "mean": mean,
        "std": std,
        "unscored": (len(said.scores) - len(scored)) / size,
        "errors": said.num_failures / size,
        "weight": weight,
        "seconds": seconds,
    } | {f"unscored_{reason}": count / size for reason, count in sorted(reasons.items())}
    own = {key: total / count for key, (total, count) in said.metrics.items()}
    return {f"rewards/{name}/{key}": value for key, value in metrics.items()} | own


def _total_metrics(rows: list[tuple[float | None, str | None]]) -> dict[str, float]:
    mean, std = mean_and_std([total for total, _ in rows if total is not None])
    share = sum(reason is not None for _, reason in rows) / max(1, len(rows))
    return {"rewards/total/mean": mean, "rewards/total/std": std, "rewards/total/unscored": share}


def _check_lengths(batch: dict[str, list]) -> None:
    size = len(batch["completions"])
    for name, values in batch.items():
        if len(values) != size:
            raise ValueError(f"column {name!r} has {len(values)} items, but there are {size} completions{_hint(name)}")


def _hint(name: str) -> str:
    return nearest(name, ("prompts", "completion_ids", "answer", "test", "entry_point", "teacher_output"))
