"""What runs inside the box around the model's text: load it, call its function, send back data.

Everything here shares a process with hostile code and may be corrupted by it: nothing it says is believed without the
judge. It knows no expected answer. Standard library only; never returns to the zygote.
"""

from __future__ import annotations

import os
import struct
import sys
import types

from sandboxes import codec

READY = b"R"
VALUE, RAISED, LOAD_FAILED, EXITED, OUT_OF_MEMORY, TOO_LARGE = b"V", b"E", b"L", b"X", b"M", b"Z"
MODULE_NAME = "solution"
_HEADER = struct.Struct("<I")


def serve(descriptor: int, result_bytes: int, result_depth: int) -> None:
    """Answer the frames on `descriptor`: the first holds source and entry point, each later one the arguments of a call."""
    pending = bytearray()

    def receive() -> bytes | None:
        while True:
            if len(pending) >= 4:
                end = 4 + _HEADER.unpack_from(pending)[0]
                if len(pending) >= end:
                    frame = bytes(pending[4:end])
                    del pending[:end]
                    return frame
            chunk = os.read(descriptor, 1 << 18)
            if not chunk:
                return None
            pending.extend(chunk)

    def send(tag: bytes, body: bytes) -> None:
        _flush()
        data = _HEADER.pack(1 + len(body)) + tag + body
        while data:
            data = data[os.write(descriptor, data) :]

    first = receive()
    if first is None:
        return
    source, entry_point = codec.decode(first, 2)
    function, failure = _load(source, entry_point)
    if failure is not None:
        send(*failure)
        return
    while (frame := receive()) is not None:
        args, kwargs = codec.decode(frame, 1 << 10)
        send(*_call(function, args, kwargs, result_bytes, result_depth))


def _load(source: str, entry_point: str) -> tuple[object, tuple[bytes, bytes] | None]:
    """The function named `entry_point`, or the failure to report."""
    module = types.ModuleType(MODULE_NAME)
    sys.modules[MODULE_NAME] = module
    try:
        exec(compile(source, "<solution>", "exec", dont_inherit=True), module.__dict__)  # inside the box only
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
        body = codec.encode(result, result_depth, opaque=True)
    except (codec.NotData, RecursionError):
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
        return codec.encode([names, str(error)[:500]], 4)
    except BaseException:
        return b'[["Exception"],""]'


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:  # the program may have closed or replaced it
            pass
