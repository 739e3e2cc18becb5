"""What produced a number: package versions, the revision of the source, the command line. No torch."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "peft", "deepspeed", "math-verify")

COMMAND_VARIABLE = "RL_DISTILL_COMMAND"
"""Set by `rl-distill` for the program it starts: the command that the user typed."""


def command_line(program: str, argv: Sequence[str]) -> str:
    """What to type to get the run again: the user's own `rl-distill` command, else the program with its arguments."""
    return os.environ.get(COMMAND_VARIABLE) or shlex.join([*shlex.split(program), *argv])


def versions() -> dict[str, str]:
    """Python and the packages that decide the numbers, without those that are not installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def git_revision() -> str | None:
    """The commit of this checkout, with `+` where files were changed; None for an installed package."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = [*git, "status", "--porcelain", "--untracked-files=no"]
        changed = subprocess.run(status, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
