"""Calls one reward function on one batch: its keywords, its own thread, its time limit, and a look at what came back.

It may assume batches of equal-length lists and functions in TRL's convention, sync or async.
It will not turn a failure into a score: a failure is a RewardError, or Unscored and counted if the run asked to skip.
"""

import asyncio
import inspect
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from .base import RewardError, RewardSpec, Unscored
from .handover import copied, declared_forms, in_form
from .registry import SHORT_NAMES, USER_CODE_ERRORS, accepted_arguments, bind

Item = tuple[float | None, str | None]  # a score, and what was wrong with it
SHOWN_CHARACTERS = 200


@dataclass
class CallResult:
    """What one function said about one batch. `failures` maps an item that is Unscored to what went wrong."""

    scores: list[float | None]
    seconds: float
    failures: dict[int, str] = field(default_factory=dict)
    columns: dict[str, list] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=dict)


class BoundReward:
    """A RewardSpec with its function: knows which keywords it takes and which of them only the teacher can give."""

    def __init__(self, spec: RewardSpec) -> None:
        self.spec = spec
        self.function, self.extra = bind(spec.fn, copied(dict(spec.kwargs)))
        self.takes, self.takes_all = accepted_arguments(self.function)
        self.copies = spec.fn not in SHORT_NAMES  # functions of this package change nothing that they are given
        self.forms = declared_forms(self.function)
        self.is_async = inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(
            getattr(self.function, "__call__", None)  # noqa: B004  an object with `async def __call__`
        )

    def waits_for_teacher(self, columns: dict[str, list]) -> bool:
        """True if the function names a `teacher_*` column that the batch does not have yet."""
        return any(name.startswith("teacher_") and name not in columns for name in self.takes)

    def start(self, batch: dict[str, Any], loop: "AsyncLoop") -> "PendingCall":
        """Begin to score; the batch holds prompts, completions, completion_ids, trainer_state and every column."""
        return PendingCall(self, batch, loop)

    def keywords(self, batch: dict[str, Any], result: CallResult) -> dict[str, Any]:
        """The keywords of one call: copies, so that no function can change what another one sees."""
        wanted = {key: value for key, value in batch.items() if self.takes_all or key in self.takes}
        copies = {key: copied(value) for key, value in wanted.items() if self.copies and isinstance(value, list)}
        offered = wanted | copies
        for name, role in (("prompts", "user"), ("completions", "assistant")):
            if name in offered:
                rendered = batch.get("rendered_prompt") if name == "prompts" else None
                offered[name] = in_form(offered[name], self.forms.get(name), role, rendered)
        loggers = {
            "log_extra": lambda column, values: result.columns.__setitem__(column, list(values)),
            "log_metric": lambda name, value: result.metrics.setdefault(name, []).append(float(value)),
        }
        offered |= {key: log for key, log in loggers.items() if self.takes_all or key in self.takes}
        return offered | self.extra


class AsyncLoop:
    """One event loop in a daemon thread, started when the first async function runs and kept between batches."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, coroutine: Any) -> Future:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="reward-async", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None


class PendingCall:
    """A call in progress. A sync function runs in its own daemon thread; if it never returns, it is abandoned."""

    def __init__(self, bound: BoundReward, batch: dict[str, Any], loop: AsyncLoop) -> None:
        self.bound, self.batch, self.loop = bound, batch, loop
        self.size = len(batch["completions"])
        self.started = time.monotonic()
        self.future: Future = Future()
        if bound.is_async:
            self.future = loop.submit(self._run_async())
        else:
            threading.Thread(target=self._run_in_thread, name=f"reward-{bound.spec.label}", daemon=True).start()

    def result(self) -> CallResult:
        """Wait for the scores, at most until the function's time limit; RewardError if it failed and may not skip."""
        spec = self.bound.spec
        remaining = None if spec.time_limit is None else max(0.0, self.started + spec.time_limit - time.monotonic())
        try:
            outcome = self.future.result(timeout=remaining)
        except TimeoutError:
            if self.bound.is_async:
                self.future.cancel()
            spent = time.monotonic() - self.started
            reason = f"took longer than its time limit of {spec.time_limit} s"
            outcome = _all_failed(self.size, spent, "time_limit", reason)
        if outcome.failures and spec.on_error == "raise":
            raise RewardError(self._message(outcome.failures))
        return outcome

    def _run_in_thread(self) -> None:
        try:
            self.future.set_result(self._run())
        except BaseException as error:  # handed to the thread that waits
            self.future.set_exception(error)

    def _run(self) -> CallResult:
        result = CallResult([], 0.0)
        try:
            raw = self._called(self.batch, result)
        except USER_CODE_ERRORS as error:  # told or counted, never scored
            items = []
            for index in range(self.size):
                items.append(self._item(index))
                if items[-1][1] is not None and self.bound.spec.on_error == "raise":
                    break
            return self._from_items(items, error)
        return self._finish(raw, result)

    async def _run_async(self) -> CallResult:
        result = CallResult([], 0.0)
        try:
            raw = await self._called(self.batch, result)
        except USER_CODE_ERRORS as error:
            items = await asyncio.gather(*(self._item_async(index) for index in range(self.size)))
            return self._from_items(items, error)
        return self._finish(raw, result)

    def _called(self, batch: dict[str, Any], result: CallResult) -> Any:
        return self.bound.function(**self.bound.keywords(batch, result))

    def _finish(self, raw: Any, result: CallResult) -> CallResult:
        result.scores, result.failures = checked_scores(raw, self.size)
        result.seconds = time.monotonic() - self.started
        return result

    def _item(self, index: int) -> Item:
        """One item alone, after the whole batch failed: to name the one at fault and to keep the others."""
        try:
            return _checked_item(self._called(_one_item(self.batch, index, self.size), CallResult([], 0.0)))
        except USER_CODE_ERRORS as error:
            return Unscored("error"), f"raised {type(error).__name__}: {error}"

    async def _item_async(self, index: int) -> Item:
        try:
            return _checked_item(await self._called(_one_item(self.batch, index, self.size), CallResult([], 0.0)))
        except USER_CODE_ERRORS as error:
            return Unscored("error"), f"raised {type(error).__name__}: {error}"

    def _from_items(self, items: Sequence[Item], error: BaseException) -> CallResult:
        failures = {index: problem for index, (_, problem) in enumerate(items) if problem is not None}
        seconds = time.monotonic() - self.started
        if not failures:  # only the whole batch fails
            reason = f"raised {type(error).__name__}: {error} (on no single item)"
            return _all_failed(self.size, seconds, "error", reason)
        return CallResult([score for score, _ in items], seconds, failures)

    def _message(self, failures: dict[int, str]) -> str:
        index = min(failures)
        spec = self.bound.spec
        called = spec.label if spec.label == spec.fn else f"{spec.label} ({spec.fn})"
        where = (
            f"item {index} of {self.size}" if len(failures) < self.size else f"a batch of {self.size}; its first item"
        )
        return (
            f"reward function {called} {failures[index]} on {where}: prompt {_shown(self.batch['prompts'][index])}, "
            f"completion {_shown(self.batch['completions'][index])} (on_error: skip would count and skip it)"
        )


def checked_scores(raw: Any, size: int) -> tuple[list[float | None], dict[int, str]]:
    """The scores as floats, None or Unscored, and for every improper one the reason (wrong type, NaN, infinity)."""
    if isinstance(raw, str | bytes | dict) or not isinstance(raw, Sequence):
        raw = raw.tolist() if hasattr(raw, "tolist") else raw  # arrays and tensors
    if not isinstance(raw, list | tuple):
        reason = f"returned {type(raw).__name__} instead of a list of {size} scores"
        return [Unscored("error")] * size, dict.fromkeys(range(size), reason)
    if len(raw) != size:
        reason = f"returned {len(raw)} scores for {size} completions"
        return [Unscored("error")] * size, dict.fromkeys(range(size), reason)
    scores: list[float | None] = []
    failures = {}
    for index, value in enumerate(raw):
        score, problem = _as_score(value)
        scores.append(score)
        if problem:
            failures[index] = problem
    return scores, failures


def _checked_item(raw: Any) -> Item:
    scores, failures = checked_scores(raw, 1)
    return scores[0], failures.get(0)


def _as_score(value: Any) -> Item:
    if value is None or isinstance(value, Unscored) or (type(value) is float and math.isfinite(value)):
        return value, None
    if isinstance(value, str | bytes):
        return Unscored("error"), f"returned {value!r:.60} instead of a number"
    try:
        number = float(value)  # int, bool, numpy scalar, tensor of one element
    except (TypeError, ValueError, OverflowError):
        return Unscored("error"), f"returned {type(value).__name__} instead of a number"
    return (number, None) if math.isfinite(number) else (Unscored("error"), f"returned {number}")


def _one_item(batch: dict[str, Any], index: int, size: int) -> dict[str, Any]:
    return {
        key: [value[index]] if isinstance(value, list) and len(value) == size else value for key, value in batch.items()
    }


def _all_failed(size: int, seconds: float, kind: str, reason: str) -> CallResult:
    return CallResult([Unscored(kind)] * size, seconds, dict.fromkeys(range(size), reason))


def _shown(message: Any) -> str:
    text = repr(message)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}... ({len(text)} characters)"
