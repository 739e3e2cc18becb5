"""What a zygote does once for all its workers: import what honest programs import, and touch a worker's memory.

Runs trusted code only, before the confinement is complete. Nothing here is reached again once workers are forked.
"""

from __future__ import annotations

import _socket
import os
import struct
import sys

from sandboxes import rootfs, worker
from sandboxes.finder import Finder

# What honest solutions import: paid for once per slot instead of once per job.
_COMMON = (
    "bisect",
    "collections",
    "copy",
    "functools",
    "heapq",
    "itertools",
    "math",
    "operator",
    "re",
    "string",
    "typing",
)
_NUM_ROUNDS = 20  # enough for the interpreter to specialise its bytecode, which writes to it
_SAMPLE = '''
from typing import List
import math
def f(xs: List[int], n: int = 1) -> list:
    """A sample of what programs do."""
    try:
        return sorted([x * n for x in xs if x % 2 == 0])
    except (ValueError, KeyError) as error:
        raise RuntimeError(f"{error!r}") from error
class A:
    def g(self, **k):
        while True:
            break
        return {1: (2, 3.5), "a": {4}}
assert A().g() and f([2])
'''


def warm_up() -> None:
    """Go through a worker's work with a trusted sample, so that workers inherit memory pages instead of faulting."""
    for name in _COMMON:
        __import__(name)
    calls: list[tuple[tuple, dict]] = [(([1, 2, 3, 4],), {"n": 2}), (("abc",), {}), ((5,), {})]
    for _ in range(_NUM_ROUNDS):
        ours, theirs = _socket.socketpair()
        for body in (worker.load_frame(_SAMPLE, "f"), *(worker.call_frame(*call) for call in calls)):
            ours.send(struct.pack("<I", len(body)) + body)
        ours.shutdown(_socket.SHUT_WR)
        worker.serve(theirs.fileno(), 1 << 20, 60)
        ours.close()
        theirs.close()
    del sys.modules[worker.MODULE_NAME]


def import_packages(packages: dict[str, str], imports: list[str]) -> None:
    """Make allowed third-party packages importable, and import those named once for all workers. Raises OSError."""
    if not packages:
        return
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # threads do not survive a fork
    in_root = os.path.isdir(rootfs.PACKAGES)
    if in_root:
        sys.path.append(rootfs.PACKAGES)
    else:
        sys.meta_path.append(Finder(packages))
    for name in imports:
        try:
            __import__(name)
        except Exception as error:
            raise OSError(f"{name} cannot be imported in the sandbox: {type(error).__name__}: {error}") from error


_POOL_BYTES, _POOL_HEADER_BYTES, _LARGEST_BLOCK = 1 << 14, 48, 512  # of CPython's allocator for small objects
_fillers: list[object] = []


def fill_pools() -> None:
    """Use up the holes in the interpreter's memory, so that a worker finds room for all its objects on few pages.

    Depends on CPython's allocator; elsewhere it does nothing useful and no harm.
    """
    for size in range(16, _LARGEST_BLOCK + 1, 16):
        for _ in range(4096):
            block: object = object() if size == 16 else (1 << 60) + len(_fillers) if size == 32 else bytes(size - 33)
            _fillers.append(block)
            if id(block) % _POOL_BYTES == _POOL_HEADER_BYTES:
                break
