"""Runs a program as a script: text on its stdin, `__name__ == "__main__"`, and what Python does at the end of a script.

Runs in the worker, beside hostile code; what it reports is compared with nothing but the bytes that were printed.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

from sandboxes import replies

_FILE = "stdin"


def run(frame: bytes) -> tuple[bytes, bytes]:
    """The frame to send: FINISHED when the script has ended as a right one does, else how it failed."""
    size = int.from_bytes(frame[:4], "little")
    source, text = frame[4 : 4 + size], frame[4 + size :]
    try:
        _provide_stdin(text)
        module = sys.modules["__main__"] = ModuleType("__main__")
        module.__dict__["__builtins__"] = __builtins__
        sys.argv[:] = ["main.py"]
        exec(compile(source.decode(), "main.py", "exec", dont_inherit=True), module.__dict__)  # inside the worker only
    except SystemExit as end:
        if end.code not in (None, 0):
            return replies.EXITED, b""
    except BaseException as error:
        return replies.failure(error, replies.RAISED)
    return _finish()


def _provide_stdin(text: bytes) -> None:
    """A file as descriptor 0 and as sys.stdin; it has no name by the time the program runs."""
    write = os.open(_FILE, os.O_CREAT | os.O_WRONLY, 0o600)
    while text:
        text = text[os.write(write, text) :]
    os.close(write)
    read = os.open(_FILE, os.O_RDONLY)
    os.unlink(_FILE)
    os.dup2(read, 0)
    os.close(read)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115 - for the whole script
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115 - buffered


def _finish() -> tuple[bytes, bytes]:
    """Wait for threads, run what was registered for the exit, write out what is buffered."""
    try:
        if (threading := sys.modules.get("threading")) is not None:
            threading._shutdown()
        if (atexit := sys.modules.get("atexit")) is not None:
            atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException as error:
        return replies.failure(error, replies.RAISED)
    return replies.FINISHED, b""
