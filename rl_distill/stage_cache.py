"""Results of a stage kept on disk by what they were made from: whole or absent, made by all processes together."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers

from . import distributed


def cached(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, made by `make` in a temporary place and renamed, so that it is whole whenever it exists.

    All processes make it together (a stage may train on all of them), each in a place of its own; the main one's stays.
    """
    if not distributed.from_main(folder.is_dir()):
        temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        make(temporary)
        if distributed.is_main() and not folder.is_dir():  # another run may have been faster
            temporary.rename(folder)
        else:
            shutil.rmtree(temporary)
        distributed.barrier()
    return folder


def cache_key(**made_from: Any) -> str:
    text = json.dumps(made_from | {"transformers": transformers.__version__}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
