"""The kinds of frames that a worker sends, and how it reports a failure.

Shares a process with hostile code. Standard library only.
"""

from __future__ import annotations

from sandboxes.codec import encode

VALUE, RAISED, LOAD_FAILED, EXITED, OUT_OF_MEMORY, TOO_LARGE = b"V", b"E", b"L", b"X", b"M", b"Z"
CHANGED, CALLBACK = b"U", b"K"  # contents of the call's arguments, before the answer; a call of a function of the test
FINISHED = b"F"  # a script has run to its end


def failure(error: BaseException, tag: bytes) -> tuple[bytes, bytes]:
    """The frame that reports `error`."""
    if isinstance(error, SystemExit):
        return EXITED, b""
    if isinstance(error, MemoryError):
        return OUT_OF_MEMORY, b""
    return tag, describe(error)


def describe(error: BaseException) -> bytes:
    """[names of the exception's classes, message, arguments, attributes]; they may be anything the program likes."""
    try:
        kinds = type(error).__mro__[:8]
        names = [[str(kind.__module__)[:80], str(kind.__qualname__)[:80]] for kind in kinds]
        words = [names, str(error)[:500]]
    except BaseException:
        return b'[[["builtins","Exception"]],"",{"t":[]},{"d":[]}]'
    try:
        details = encode([*words, error.args, {key: item for key, item in vars(error).items() if key != "name"}], 12)
        if len(details) < 10_000:
            return details
    except BaseException:
        pass
    return encode([*words, (words[1],), {}], 5)
