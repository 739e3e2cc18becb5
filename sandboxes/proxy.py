"""What a test gets in the place of the candidate: a proxy that asks the worker and returns decoded data or handles.

Used by the judge. Raises JobError if a test asks with what cannot be sent; once the program can answer no more, every
further question raises `Gone`, and `ended` says why.
"""

from __future__ import annotations

import builtins
import re
import sys
import threading
import types
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any, Protocol

from sandboxes import codec, handles, operations, replies, worker
from sandboxes.contract import JobError, Outcome
from sandboxes.program import ProgramEnded
from sandboxes.spawn import ZygoteLost

_ENDS_LOOPS = ("StopIteration", "StopAsyncIteration")
_OWN_MODULES = ("solution", "__main__")
_MOST_ITEMS = 100_000  # of an iterator of the test that is handed to the program
_PLAIN = frozenset({type(None), bool, int, float, str, bytes, complex})
_CLASS_NAME = re.compile(r"[A-Z]\w*")


class Program(Protocol):
    """A running program, here or on another machine."""

    def send(self, *bodies: bytes) -> None: ...

    def receive(self) -> tuple[bytes, bytes]: ...


class CandidateError(Exception):
    """The candidate raised an exception of a type the judge does not know."""


class Gone(BaseException):
    """The program can answer no more; `except Exception` in a test does not catch it."""


class Session:
    """The conversation of one test with one program. Several threads of a test may take part."""

    def __init__(
        self,
        program: Program,
        result_depth: int,
        num_sent_ahead: int = 0,
        class_under_test: bool = False,
        watches_arguments: bool = False,
    ):
        self.class_under_test, self.watches_arguments = class_under_test, watches_arguments
        self.test_packages: frozenset[str] = frozenset()
        self.namespace: dict[str, Any] = {}  # of the test: its classes and those of the prelude are trusted
        self.is_asking = False  # the judge's own work, which no guard of the test concerns
        self.num_answers = self.num_told = self.num_gone = 0  # told: answers other than None and exceptions
        self.failure: BaseException | None = None  # the latest exception of the candidate
        self.ended: Exception | None = None
        self._program, self._depth = program, result_depth
        self._num_ahead, self._early = num_sent_ahead, deque[tuple[bytes, bytes]]()
        self._decoder = codec.Decoder(lambda body: handles.made(self, body))
        self._functions: list[Any] = []
        self._lock = threading.RLock()

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The answer to a call of the candidate."""
        with self._lock:
            if self._num_ahead:
                self._num_ahead -= 1
                return self._answer(*(self._early.popleft() if self._early else self._receive()))
            if not (_is_plain(args) and _is_plain(kwargs)):
                return self.operate("call", handles.Handle(self, operations.ENTRY, "", ""), *args, **kwargs)
            watched = self.watches_arguments and not (_is_flat(args) and _is_flat(kwargs))
            return self._ask(_marshalled(args, kwargs, watched), (args, kwargs) if watched else None)

    def operate(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """The answer to another question: see `operations.py`."""
        with self._lock:
            try:
                frame = codec.encode([name, list(args), kwargs], codec.ARGUMENT_DEPTH, self._send_object)
            except (ValueError, RecursionError) as error:
                raise JobError(f"an argument of a test cannot be sent: {error}") from None
            while len(self._early) < self._num_ahead:
                self._early.append(self._receive())
            arguments = (*args, *kwargs.values())
            num_containers = len(operations.containers(arguments)) if self.watches_arguments and name == "call" else 0
            return self._ask(worker.operation_frame(frame, num_containers), arguments)

    def class_named(self, name: str) -> type | None:
        """The test's or prelude's own class of that name."""
        found = self.namespace.get(name)
        is_class = issubclass(type(found), type)  # not isinstance, which asks a handle what it stands for
        return found if is_class and found.__module__ == "test" else None

    def is_data(self, value: Any) -> bool:
        """Whether a program could answer with `value`."""
        try:
            codec.encode(value, self._depth)
        except (ValueError, RecursionError):
            return False
        return True

    def _ask(self, frame: bytes, arguments: tuple[Any, ...] | None = None) -> Any:
        self._send(frame)
        tag, body = self._receive()
        while tag in (replies.CALLBACK, replies.CHANGED):
            if tag == replies.CHANGED:
                self._apply_changes(body, arguments)
            else:
                self._send(worker.operation_frame(self._called_back(body)))
            tag, body = self._receive()
        if arguments is not None and b'{"r":' in body:
            self._decoder.arguments = operations.containers(arguments)
        try:
            return self._answer(tag, body)
        finally:
            self._decoder.arguments = []

    def _send(self, frame: bytes) -> None:
        if self.ended is None:
            self.is_asking = True
            try:
                self._program.send(frame)
            finally:
                self.is_asking = False

    def _receive(self) -> tuple[bytes, bytes]:
        self.is_asking = True
        try:
            if self.ended is None:
                return self._program.receive()
        except (ProgramEnded, ZygoteLost, OSError) as end:  # the last two: the sandbox's trouble
            self.ended = end
        finally:
            self.is_asking = False
        self.num_gone += 1
        raise Gone

    def _end(self, reason: ProgramEnded) -> Gone:
        self.ended = self.ended or reason
        self.num_gone += 1
        return Gone()

    def _answer(self, tag: bytes, body: bytes) -> Any:
        try:
            value = self._read(tag, body)
        except ProgramEnded as end:
            raise self._end(end) from None
        self.num_answers += 1
        if tag == replies.RAISED:
            self.failure = value
            raise value
        self.num_told += value is not None
        return value

    def _read(self, tag: bytes, body: bytes) -> Any:
        """The value in an answer, or the exception the candidate raised. Raises ProgramEnded for every other frame."""
        try:
            if tag == replies.VALUE:
                return self._decoder.decode(body, self._depth)
            if tag == replies.RAISED:
                return self._exception(*codec.decode(body, 16))
        except (ValueError, TypeError, KeyError, RecursionError, MemoryError):
            raise ProgramEnded(Outcome.PROTOCOL, "malformed answer") from None
        raise how_it_failed(tag, body)

    def _apply_changes(self, body: bytes, arguments: tuple[Any, ...] | None) -> None:
        """Make the test's own lists, dicts and sets what the program has made of its copies."""
        try:
            own = operations.containers(arguments)
            self._decoder.arguments = own
            contents = self._decoder.decode(body, self._depth)
            if type(contents) is not list or len(contents) != len(own):
                raise ValueError("one content for each container")
            if any(type(new) is not type(old) for old, new in zip(own, contents, strict=True)):
                raise ValueError("containers keep their types")
        except (ValueError, RecursionError, MemoryError):
            raise self._end(ProgramEnded(Outcome.PROTOCOL, "malformed arguments")) from None
        for old, new in zip(own, contents, strict=True):
            old.clear()
            (old.update if isinstance(old, dict | set) else old.extend)(new)

    def _called_back(self, body: bytes) -> bytes:
        """The result of a function of the test that the program has called, as a frame."""
        try:
            number, args, kwargs = self._decoder.decode(body, self._depth)
            function = self._functions[number] if type(number) is int and number >= 0 else None
            if function is None:
                raise ValueError("functions are numbered")
        except (ValueError, TypeError, IndexError, RecursionError, MemoryError):
            raise self._end(ProgramEnded(Outcome.PROTOCOL, "malformed call")) from None
        try:
            answer: list[Any] = ["returned", [function(*args, **kwargs)], {}]
        except Exception as error:
            answer = ["raised", [type(error).__name__, list(error.args)], {}]
        try:
            return codec.encode(answer, codec.ARGUMENT_DEPTH, self._send_object)
        except (ValueError, RecursionError):
            return codec.encode(["raised", ["TypeError", ["the test's answer cannot be sent"]], {}], 5)

    def _send_object(self, value: Any, encoder: codec.Encoder, depth: int) -> list[Any] | None:
        """What stands for an object of the test or, on its way back, of the program. None for what may be data."""
        kind = type(value)
        if issubclass(kind, handles.Handle):
            if value.__dict__["_session"] is not self:
                raise codec.NotData("an object of another program")
            return [value.__dict__["_number"]]
        if self.class_named(kind.__name__) is kind:
            return ["instance", kind.__name__, encoder.wrap(vars(value), depth - 1)]
        if callable(value):
            self._functions.append(value)
            return ["function", len(self._functions) - 1]
        if kind is types.CoroutineType:  # an answer: no reason to leave the program unscored
            raise TypeError("a coroutine that was not awaited cannot be handed back")
        if hasattr(kind, "__next__"):
            return ["items", encoder.wrap(list(islice(value, _MOST_ITEMS)), depth - 1)]
        return None

    def _exception(self, names: list[list[str]], message: str, args: Any, details: dict[str, Any]) -> Exception:
        """An exception of the first class we know, so that tests may expect it: the test's own, or a library's.

        Never StopIteration: raised inside `all(map(...))` it would end the test's own loop instead of failing the test.
        """
        if type(names) is not list or type(args) is not tuple or type(details) is not dict:
            raise ValueError("an exception has names, arguments and attributes")
        for module, name in names:
            if name in _ENDS_LOOPS:
                break
            kind = self._exception_class(module, name)
            if kind is not None:
                return _instance(kind, str(message), args, details)
        return CandidateError(f"{names[0][1] if names else 'Exception'}: {message}")

    def _exception_class(self, module: str, name: str) -> type[Exception] | None:
        if type(module) is not str or type(name) is not str:
            raise ValueError("names are text")
        if module in _OWN_MODULES:
            found = self.namespace.get(name)
        else:
            found = getattr(builtins if module == "builtins" else sys.modules.get(module), name, None)
        if found is None or not issubclass(type(found), type):  # not isinstance, as above
            return None
        return found if issubclass(found, Exception) and found is not Exception else None


def _instance(kind: type[Exception], message: str, args: tuple[Any, ...], details: dict[str, Any]) -> Exception:
    """An exception with these arguments; no constructor of the test's own runs."""
    if kind.__module__ == "builtins":
        for arguments in (args, (message,)):
            try:
                return kind(*arguments)
            except TypeError:  # UnicodeDecodeError and its like want certain arguments
                continue
        return CandidateError(f"{kind.__name__}: {message}")
    made = kind.__new__(kind)
    made.args = args
    if kind.__module__ == "test":
        vars(made).update(details)
    return made


def how_it_failed(tag: bytes, body: bytes) -> ProgramEnded:
    """The end of a program that has sent a frame other than an answer."""
    if tag == replies.LOAD_FAILED and (words := message_in(body)):
        return ProgramEnded(Outcome.LOAD_ERROR, words)
    if tag == replies.EXITED:
        return ProgramEnded(Outcome.EXITED, "SystemExit")
    if tag == replies.OUT_OF_MEMORY:
        return ProgramEnded(Outcome.MEMORY, "MemoryError")
    return ProgramEnded(
        Outcome.PROTOCOL, "answer too large or too deep" if tag == replies.TOO_LARGE else "unknown frame"
    )


def message_in(body: bytes) -> str:
    """What a failed program says of its failure; nothing if that is malformed."""
    try:
        names, message, *_ = codec.decode(body, 16)
        return f"{names[0][1]}: {message}"[:300]
    except (ValueError, TypeError, IndexError, KeyError):
        return ""


class Candidate(handles.FunctionHandle):
    """What `check(candidate)` gets: the function under test."""

    def __init__(self, session: Session, entry_point: str):
        super().__init__(session, operations.ENTRY, entry_point.rpartition(".")[2], "solution")
        self.__dict__.update(__name__=self._class_name, __qualname__=self._class_name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._session.call(args, kwargs)


def is_class_under_test(entry_point: str, prelude_classes: Iterable[str]) -> bool:
    """Whether the job is about a class: the head defines it as one, or it is named like one."""
    return entry_point in prelude_classes or _CLASS_NAME.fullmatch(entry_point) is not None


def encode_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """One call with plain data as a frame. Raises JobError for arguments that are not."""
    if not (_is_plain(args) and _is_plain(kwargs)):
        raise JobError("an argument is not plain data")
    return _marshalled(args, kwargs, watched=False)


def _marshalled(args: tuple[Any, ...], kwargs: dict[str, Any], watched: bool) -> bytes:
    try:
        return worker.call_frame(args, kwargs, watched)
    except ValueError as error:
        raise JobError(f"an argument of a test cannot be sent: {error}") from None


def _is_flat(value: tuple[Any, ...] | dict[str, Any]) -> bool:
    """Whether nothing in the arguments could be changed in place."""
    return set(map(type, value.values() if isinstance(value, dict) else value)) <= _PLAIN


def _is_plain(value: Any) -> bool:
    """Whether `value` is made of exactly the types that travel fast."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        kind = type(item)
        if kind in _PLAIN:
            continue
        if kind is dict:
            parts = [*item, *item.values()]
        elif kind in (list, tuple, set, frozenset):
            parts = item
        else:
            return False
        if not set(map(type, parts)) <= _PLAIN:
            waiting += parts
            if len(waiting) > 10_000_000:
                return False  # it holds itself
    return True
