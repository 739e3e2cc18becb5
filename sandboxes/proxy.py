"""What a test gets in the place of the candidate: a proxy that asks the worker and returns decoded data only.

Used by the judge. Raises JobError if a test asks with what is not data, ProgramEnded if the program can answer no more.
"""

from __future__ import annotations

import builtins
from typing import Any, Protocol

from sandboxes import codec, worker
from sandboxes.contract import JobError, Outcome
from sandboxes.program import ProgramEnded
from sandboxes.spawn import ZygoteLost

_ENDS_LOOPS = ("StopIteration", "StopAsyncIteration")


class Program(Protocol):
    """A running program, here or on another machine."""

    def send(self, *bodies: bytes) -> None: ...

    def receive(self) -> tuple[bytes, bytes]: ...


class CandidateError(Exception):
    """The candidate raised an exception of a type the judge does not know."""


class Gone(BaseException):
    """Ends the test body when the program can answer no more; `except Exception` in a test does not catch it."""


class Candidate:
    """What `check(candidate)` gets: a function that asks the worker. Remembers how the program failed."""

    def __init__(self, program: Program, result_depth: int, num_sent_ahead: int):
        self._program, self._depth = program, result_depth
        self._num_sent_ahead = num_sent_ahead
        self.num_answers = 0
        self.failure: BaseException | None = None
        self.ended: Exception | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._num_sent_ahead:
            self._num_sent_ahead -= 1
        else:
            self._program.send(encode_call(args, kwargs))
        try:
            tag, body = self._program.receive()
        except (
            ProgramEnded,
            ZygoteLost,
            OSError,
        ) as end:  # the last two: the sandbox's trouble
            self.ended = end
            raise Gone from None
        try:
            return self._answer(tag, body)
        except ProgramEnded as end:
            self.ended = end
            raise Gone from None

    def _answer(self, tag: bytes, body: bytes) -> Any:
        value = read_answer(tag, body, self._depth)
        self.num_answers += 1
        if tag == worker.RAISED:
            self.failure = value
            raise value
        return value


def encode_call(args: Any, kwargs: dict[str, Any]) -> bytes:
    """One call as a frame. Raises JobError for arguments that are not data, TypeError if the program made them so."""
    try:
        return worker.call_frame(tuple(args), dict(kwargs))
    except ValueError as error:
        if codec.holds_opaque([args, kwargs]):
            raise TypeError("the test hands back an answer that is not data") from None
        raise JobError(f"an argument of a test cannot be sent: {error}") from None


def read_answer(tag: bytes, body: bytes, max_depth: int) -> Any:
    """The value in an answer, or the exception the candidate raised. Raises ProgramEnded for every other frame."""
    try:
        if tag == worker.VALUE:
            return codec.decode(body, max_depth)
        if tag == worker.RAISED:
            return _exception(*codec.decode(body, 4))
        if tag == worker.LOAD_FAILED:
            raise ProgramEnded(Outcome.LOAD_ERROR, str(_exception(*codec.decode(body, 4)).__class__.__name__))
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise ProgramEnded(Outcome.PROTOCOL, "malformed answer") from None
    if tag == worker.EXITED:
        raise ProgramEnded(Outcome.EXITED, "SystemExit")
    if tag == worker.OUT_OF_MEMORY:
        raise ProgramEnded(Outcome.MEMORY, "MemoryError")
    raise ProgramEnded(Outcome.PROTOCOL, "answer too large or too deep" if tag == worker.TOO_LARGE else "unknown frame")


def _exception(names: list[str], message: str) -> Exception:
    """A built-in exception of the first class we know by name, so that tests may expect it.

    Never StopIteration: raised inside `all(map(...))` it would end the test's own loop instead of failing the test.
    """
    if type(names) is not list:
        raise ValueError("the names of the classes are a list")
    for name in names:
        if name in _ENDS_LOOPS:
            break
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception) and kind is not Exception:
            try:
                return kind(str(message))
            except TypeError:  # UnicodeDecodeError and its like want more arguments
                continue
    return CandidateError(f"{names[0] if names else 'Exception'}: {message}")
