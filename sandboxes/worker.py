"""What runs inside the worker around the model's text: load it, call its function, send back data.

Everything here shares a process with hostile code and may be corrupted by it: nothing it says is believed without the
judge. It knows no expected answer. Standard library only; never returns to the zygote.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from marshal import dumps, loads
from types import ModuleType

from sandboxes.codec import NotData, encode

VALUE, RAISED, LOAD_FAILED, EXITED, OUT_OF_MEMORY, TOO_LARGE = b"V", b"E", b"L", b"X", b"M", b"Z"
MODULE_NAME = "solution"
_modules = sys.modules


def serve(descriptor: int, result_bytes: int, result_depth: int) -> None:
    """Answer the frames on `descriptor` over it, until it is closed."""
    answer(_frames(descriptor), functools.partial(_send, descriptor), result_bytes, result_depth)


def answer(frames: Iterator[bytes], send: Callable[[bytes, bytes], None], result_bytes: int, result_depth: int) -> None:
    """Answer `frames`, first the program (see `load_frame`), then the arguments of each call, by a tag and a body."""
    entry_point, _, source = next(frames, b"").partition(b"\0")
    function, failure = _load(source.decode(), entry_point.decode())
    if failure is not None:
        send(*failure)
        return
    for frame in frames:
        args, kwargs = loads(frame)  # from the judge: trusted
        send(*_call(function, args, kwargs, result_bytes, result_depth))


def _frames(descriptor: int, read: Callable[[int, int], bytes] = os.read) -> Iterator[bytes]:
    pending = b""
    while True:
        start, size = 0, len(pending)
        while size - start >= 4:
            end = start + 4 + int.from_bytes(pending[start : start + 4], "little")
            if end > size:
                break
            yield pending[start + 4 : end]
            start = end
        chunk = read(descriptor, 1 << 16 if pending else 1 << 12)
        if not chunk:
            return
        pending = pending[start:] + chunk


def _send(descriptor: int, tag: bytes, body: bytes, write: Callable[[int, bytes], int] = os.write) -> None:
    data = (1 + len(body)).to_bytes(4, "little") + tag + body
    while data:
        data = data[write(descriptor, data) :]


def call_frame(args: tuple, kwargs: dict) -> bytes:
    """The frame of one call, as the judge sends it. Raises ValueError for arguments that are not data."""
    return dumps((args, kwargs))


def load_frame(source: str, entry_point: str) -> bytes:
    """The first frame, as the judge sends it."""
    return entry_point.encode() + b"\0" + source.encode()


def _load(source: str, entry_point: str) -> tuple[object, tuple[bytes, bytes] | None]:
    """The function named `entry_point`, or the failure to report."""
    module = ModuleType(MODULE_NAME)
    _modules[MODULE_NAME] = module
    try:
        exec(compile(source, "<solution>", "exec", dont_inherit=True), module.__dict__)  # inside the worker only
        function = module.__dict__[entry_point]
        if not callable(function):
            raise TypeError(f"{entry_point} is not callable")
        return function, None
    except KeyError as error:
        return None, (LOAD_FAILED, _describe(error))
    except BaseException as error:
        return None, _failure(error, LOAD_FAILED)


def _call(function, args, kwargs, result_bytes: int, result_depth: int) -> tuple[bytes, bytes]:
    try:
        result = function(*args, **kwargs)
    except BaseException as error:
        return _failure(error, RAISED)
    try:
        body = encode(result, result_depth, opaque=True)
    except (NotData, RecursionError):
        return TOO_LARGE, b""
    except BaseException as error:
        return _failure(error, RAISED)
    return (VALUE, body) if len(body) <= result_bytes else (TOO_LARGE, b"")


def _failure(error: BaseException, tag: bytes) -> tuple[bytes, bytes]:
    if isinstance(error, SystemExit):
        return EXITED, b""
    if isinstance(error, MemoryError):
        return OUT_OF_MEMORY, b""
    return tag, _describe(error)


def _describe(error: BaseException) -> bytes:
    """[names of the exception's classes, message]; the text may be anything the program likes."""
    try:
        names = [str(kind.__name__)[:80] for kind in type(error).__mro__[:8]]
        return encode([names, str(error)[:500]], 4)
    except BaseException:
        return b'[["Exception"],""]'
