"""Decoding for a server: one worker thread gathers waiting requests into batches and answers them.

It may assume prompts and lengths within the limits. A failure of the decoder fails every request that waits, with
EngineError, and the decoder is made anew; no request stays without an answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..generation.sampling import Generated, Sampling, StopStrings, added_text, generate
from ..models.loading import load
from ..models.tokenizers import num_token_ids
from ..types import Finish

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
RESTART_SECONDS = (0.2, 10.0)
"""The wait before a decoder is made anew: doubled with every failure in a row, from the first to the second."""


class EngineError(RuntimeError):
    """The decoder failed or is not there; the request may be sent again."""


class QueueFull(RuntimeError):
    """More requests wait than the limit allows."""


@dataclass(frozen=True)
class Work:
    """What one request asks of the decoder."""

    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stops: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """A completion without its stop text. `num_tokens` counts what was decoded for it, the end included."""

    text: str
    num_tokens: int
    finish: Finish


class Decoder(Protocol):
    def decode(self, batch: Sequence[Work], most_new_tokens: int) -> list[Answer]:
        """One answer per request; all of them have equal sampling settings."""
        ...


class StudentDecoder:
    """A student in this process, decoded by the project's own sampler."""

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.vocab_size = num_token_ids(tokenizer)

    @classmethod
    def load(cls, folder: str, dtype: str = "float32") -> StudentDecoder:
        """ConfigError where the folder holds no whole model."""
        return cls(*load(folder, dtype, who="serve"))

    def decode(self, batch: Sequence[Work], most_new_tokens: int) -> list[Answer]:
        first = batch[0]
        rows = generate(
            self.model,
            [work.prompt_ids for work in batch],
            Sampling(most_new_tokens, first.temperature, first.top_p),
            eos_token_ids=[self.tokenizer.eos_token_id],
            pad_token_id=self.tokenizer.eos_token_id
            if self.tokenizer.pad_token_id is None
            else self.tokenizer.pad_token_id,
            seeds=[work.seed for work in batch],
            batch_size=len(batch),
            vocab_size=self.vocab_size,
            stop=StopStrings.of(self.tokenizer, first.stops),
        )
        return [self._answer(work, row) for work, row in zip(batch, rows, strict=True)]

    def _answer(self, work: Work, row: Generated) -> Answer:
        ids, finish = row.token_ids, row.finish
        if len(ids) > work.max_new_tokens:
            ids, finish = ids[: work.max_new_tokens], Finish.LENGTH
        text = added_text(self.tokenizer, work.prompt_ids, ids)
        places = [place for place in (text.find(stop) for stop in work.stops) if place >= 0]
        return Answer(text[: min(places)] if places else text, len(ids), finish)


@dataclass
class _Waiting:
    work: Work
    future: Future[Answer] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Engine:
    """Requests in, futures of answers out. `make_decoder` is called again after a failure.

    A batch holds requests with equal sampling settings, in the order of their arrival. Its length is the power of two
    that holds the request's max_new_tokens, so what a request gets does not depend on those beside it.
    """

    def __init__(
        self,
        make_decoder: Callable[[], Decoder],
        *,
        batch_size: int,
        queue_length: int,
        most_new_tokens: int,
        on_queue_seconds: Callable[[float], None] = lambda seconds: None,
        on_restart: Callable[[], None] = lambda: None,
    ) -> None:
        self.make_decoder, self.on_queue_seconds, self.on_restart = make_decoder, on_queue_seconds, on_restart
        self.batch_size, self.queue_length, self.most_new_tokens = batch_size, queue_length, most_new_tokens
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._num_decoding = 0
        self._closing = False
        self._decoder: Decoder | None = make_decoder()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        return self._decoder is not None and not self._closing

    @property
    def num_pending(self) -> int:
        """Requests that wait or decode."""
        return len(self._waiting) + self._num_decoding

    def submit(self, work: Work) -> Future[Answer]:
        """Raises QueueFull, or EngineError while the decoder is being made anew and after `close`."""
        with self._changed:
            if not self.is_ready:
                raise EngineError("the engine is restarting")
            if self.num_pending >= self.queue_length:
                raise QueueFull(f"{self.num_pending} requests are waiting")
            waiting = _Waiting(work)
            self._waiting.append(waiting)
            self._changed.notify()
        return waiting.future

    def close(self, seconds: float = 30.0) -> None:
        """Answers what waits, for at most so many seconds, and fails the rest."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)
        self._fail(self._take_all(), EngineError("the server is shutting down"))

    def _run(self) -> None:
        failures = 0
        while (batch := self._next_batch()) is not None:
            if not batch:
                continue
            try:
                self._decode(batch)
                failures = 0
            except Exception as error:  # whatever a model raises: the requests must hear of it
                logger.exception("the decoder failed; it is made anew")
                self._decoder = None
                self._fail([*batch, *self._take_all()], EngineError(f"the engine failed ({type(error).__name__})"))
                failures += 1
                self._restart(failures)

    def _next_batch(self) -> list[_Waiting] | None:
        """The oldest request and those that can share its batch; None at the end."""
        with self._changed:
            self._num_decoding = 0
            while not self._waiting and not self._closing:
                self._changed.wait()
            if not self._waiting:
                return None
            key = self._key(self._waiting[0].work)
            batch, rest = list[_Waiting](), deque[_Waiting]()
            for waiting in self._waiting:
                fits = len(batch) < self.batch_size and self._key(waiting.work) == key
                (batch if fits else rest).append(waiting)
            self._waiting = rest
            batch = [waiting for waiting in batch if waiting.future.set_running_or_notify_cancel()]
            self._num_decoding = len(batch)
            return batch

    def _key(self, work: Work) -> tuple[Any, ...]:
        return self._length(work), work.temperature, work.top_p if work.temperature > 0 else 1.0, work.stops

    def _length(self, work: Work) -> int:
        return min(1 << (work.max_new_tokens - 1).bit_length(), self.most_new_tokens)

    def _decode(self, batch: list[_Waiting]) -> None:
        assert self._decoder is not None
        now = time.monotonic()
        for waiting in batch:
            self.on_queue_seconds(now - waiting.since)
        answers = self._decoder.decode([waiting.work for waiting in batch], self._length(batch[0].work))
        for waiting, answer in zip(batch, answers, strict=True):
            waiting.future.set_result(answer)

    def _restart(self, failures: int) -> None:
        first, last = RESTART_SECONDS
        while self._decoder is None and not self._closing:
            self.on_restart()
            with self._changed:
                self._changed.wait_for(lambda: self._closing, timeout=min(last, first * 2 ** (failures - 1)))
            try:
                self._decoder = self.make_decoder()
            except Exception:
                logger.exception("the decoder cannot be made anew")
                failures += 1

    def _take_all(self) -> list[_Waiting]:
        with self._changed:
            waiting, self._waiting = list(self._waiting), deque()
        return waiting

    def _fail(self, requests: Sequence[_Waiting], error: EngineError) -> None:
        for waiting in requests:
            if not waiting.future.done():
                waiting.future.set_exception(error)
