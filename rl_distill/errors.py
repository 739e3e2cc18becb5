"""The errors that speak to the user, and how a program ends: a mistake in one line, a fault with its traceback kept.

May be imported by everything; looks at torch's processes only where a run has started some. It hides no error.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from reward_models import RewardError

USER_ERROR, FAULT, INTERRUPTED = 2, 1, 130
"""Exit statuses: the user can put it right; the program is at fault; Ctrl-C."""
DEBUG = "RLD_DEBUG"
SIGNS_OF_A_FULL_DISK = ("No space left on device", "PytorchStreamWriter failed writing", "unexpected pos")
"""What safetensors and torch.save say when the system gives them ENOSPC."""
TRACEBACK_FILE = "traceback.txt"
_OUTPUT_DIR: list[Path] = []
for _logger in ("torchao", "torch.utils._pytree"):  # torchao tells at import which GPU kernels this machine cannot load
    logging.getLogger(_logger).setLevel(logging.ERROR)


class UserError(Exception):
    """Something the user can put right. The message says in one line what is wrong, where, and what to do."""


class LaunchError(UserError, RuntimeError):
    """The processes were not started as the run needs them."""


class OneLineParser(argparse.ArgumentParser):
    """A parser whose mistakes are one line: argparse alone prints up to fourteen lines of usage above its message."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Ends the program with status 2 and the message; beside an unknown option the nearest known one."""
        options = [word for word in message.split() if word.startswith("-")]
        if message.startswith("unrecognized") and options:
            message += self.nearest_option(options[0])
        self.fail(f"{message}; see {self.prog} --help")

    def fail(self, message: object) -> NoReturn:
        """Ends the program with status 2 and a message that says by itself what to do."""
        self.exit(USER_ERROR, f"error: {message}\n")

    def nearest_option(self, word: str, others: Iterable[str] = ()) -> str:
        """`; did you mean '--seed'?` for an unknown option near one of this parser or of `others`; else nothing."""
        known = [*self._option_string_actions, *others]
        near = difflib.get_close_matches(word.partition("=")[0], known, n=1)
        return f"; did you mean {near[0]!r}?" if near else ""


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Around a program, also as a decorator: what it raises ends it with a line on stderr and an exit status.

    Among several processes one of them speaks and all end. RLD_DEBUG=1 prints the traceback too.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        end(error)


def keep_tracebacks_in(folder: Path) -> None:
    """The folder for tracebacks of errors that are not the user's."""
    _OUTPUT_DIR[:] = [folder]


def end(error: BaseException) -> NoReturn:
    """Ends this process as the error asks for; never returns."""
    told, status = in_one_line(error)
    if os.environ.get(DEBUG):
        told = "".join(traceback.format_exception(error)) + told
    distributed = sys.modules.get("rl_distill.distributed")
    if distributed is not None and distributed.is_watched():
        distributed.end_launch(f"error: {told}" if status != INTERRUPTED else told, status)
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"error: {told}" if status != INTERRUPTED else told, file=sys.stderr, flush=True)
    raise SystemExit(status) from None


def in_one_line(error: BaseException) -> tuple[str, int]:
    """(what to say, exit status)."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, UserError | RewardError):
        return str(error), USER_ERROR
    known = _of_the_machine(error)
    return (known, USER_ERROR) if known else (_fault(error), FAULT)


def _of_the_machine(error: BaseException) -> str | None:
    """What a full disk, a full memory or a folder without permission means; None where it is something else."""
    words = " ".join(str(error).split())
    is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    if is_full or any(sign in words for sign in SIGNS_OF_A_FULL_DISK):
        place = getattr(error, "filename", None) or "output_dir or cache_dir"
        return (
            f"no space left on the disk of {place}: free some, or set output_dir and cache_dir elsewhere; the last "
            "complete checkpoint is kept (--resume_from_checkpoint latest)"
        )
    if isinstance(error, NotADirectoryError | IsADirectoryError | FileExistsError) and error.filename:
        return f"{error.filename}: {str(error.strerror).lower()}; choose another path"
    if isinstance(error, PermissionError):
        return f"{error.filename}: permission denied; give this user access, or choose another path"
    if type(error).__name__ == "OutOfMemoryError" or "not enough memory" in words or isinstance(error, MemoryError):
        return (
            "out of memory: lower ppo.micro_batch_size, generation.batch_size or teacher.micro_batch_size, or set "
            f"student.gradient_checkpointing; `rl-distill doctor` estimates what a run needs ({words[:150]})"
        )
    return None


def _fault(error: BaseException) -> str:
    """The line about an unforeseen error, whose traceback is kept in a file."""
    words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/rl_distill/" in frame.filename or "/reward_models/" in frame.filename]
    where = f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    return f"{words}{where}; {_kept(error)}"


def _kept(error: BaseException) -> str:
    """Where the traceback is; it is printed where it cannot be written."""
    text = "".join(traceback.format_exception(error))
    path = (_OUTPUT_DIR[0] if _OUTPUT_DIR else Path(tempfile.gettempdir())) / TRACEBACK_FILE
    try:
        path.write_text(text)
    except OSError:
        print(text, file=sys.stderr)
        return "its traceback is above"
    return f"not foreseen, please report it with {path} ({DEBUG}=1 prints the traceback)"
