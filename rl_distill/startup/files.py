"""Folders that a run writes to: can they be written, is there room, does another run use them; and packages it needs.

It may write a probe and a lock file, nothing else.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from ..distributed import is_deepspeed
from .findings import Finding

LOCK = ".lock"
GIB = 2**30
PACKAGES = {"tensorboard": "tensorboard", "azure_ml": "azureml", "clearml": "clearml", "codecarbon": "codecarbon"}
"""Packages of trackers that are not called like the tracker."""
BUILTIN_TRACKERS = ("none", "all")
OLD_LOCK_SECONDS = 120.0
_HELD: list[IO[str]] = []


def folder_findings(name: str, folder: Path) -> list[Finding]:
    """Whether the folder is there, or can be made, and a file can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return []
    except OSError as error:
        words = f"{str(folder)!r} cannot be written ({error.strerror})"
        return [Finding("bad", name, words, f"set {name} to a folder of yours")]


def lock_findings(folder: Path) -> list[Finding]:
    """Takes the folder for this process until it ends; a finding where another one has it."""
    file = (folder / LOCK).open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it dies
    except BlockingIOError:
        file.seek(0)
        words = f"{str(folder)!r} is in use by another run ({file.read().strip() or 'unknown'})"
        return [Finding("bad", "output_dir", words, "wait for it, or set another output_dir")]
    except OSError:  # a file system without locks
        return []
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    _HELD.append(file)
    return []


def space_findings(folder: Path, checkpoint_bytes: float, num_checkpoints: int) -> list[Finding]:
    """Room for one checkpoint and the export is a must; less than for all that are kept is a warning."""
    free = shutil.disk_usage(folder).free
    words = f"{free / GIB:.1f} GiB are free on the disk of {str(folder)!r}; a checkpoint needs "
    words += f"about {checkpoint_bytes / GIB:.1f} GiB"
    do = "free some, lower checkpoint.keep_last, or set another output_dir"
    if free < 1.5 * checkpoint_bytes:
        return [Finding("bad", "disk space", words, do)]
    if free < (num_checkpoints + 1) * checkpoint_bytes:
        return [Finding("warn", "disk space", f"{words}, and {num_checkpoints} are kept", do)]
    return []


def tracker_findings(names: Iterable[str]) -> list[Finding]:
    """Whether transformers knows each tracker of report_to, and its package is installed."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    findings = []
    for name in names:
        if name in BUILTIN_TRACKERS:
            continue
        package = PACKAGES.get(name, name)
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            findings.append(Finding("bad", "report_to", f"{name!r} is not known", f"there are: {known}"))
        elif importlib.util.find_spec(package) is None:
            do = f"pip install {package}, or leave it out (report_to: [])"
            findings.append(Finding("bad", "report_to", f"the package of {name!r} is not installed", do))
    return findings


def compile_lock_findings() -> list[Finding]:
    """Locks that an interrupted compilation of DeepSpeed's operations left: the next launch waits for them forever."""
    if not is_deepspeed():
        return []
    own = os.environ.get("TORCH_EXTENSIONS_DIR")
    root = Path(own) if own else Path("~/.cache/torch_extensions").expanduser()
    old = [path for path in root.rglob("lock") if time.time() - path.stat().st_mtime > OLD_LOCK_SECONDS]
    do = "remove that file, unless another launch is compiling at this moment"
    return [
        Finding("bad", "DeepSpeed", f"an interrupted launch left the compile lock {path}: this one would wait", do)
        for path in old
    ]
