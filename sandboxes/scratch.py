"""Keeps the one writable directory of a slot empty between jobs.

Runs in the zygote, or in the judge, while no program is alive.
A directory that cannot be emptied is reported, and the slot is then replaced as a whole.
"""

from __future__ import annotations

import os
import stat

_MAX_DEPTH = 512


class Scratch:
    """The scratch directory behind a descriptor opened once: it stays usable when a program takes away its mode."""

    def __init__(self, path: str, descriptor: int | None = None):
        """`descriptor`: the number to keep the directory open under, if it matters."""
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if descriptor not in (None, self.descriptor):
            found = self.descriptor
            self.descriptor = os.dup2(found, descriptor, inheritable=False)
            os.close(found)
        self.mode = stat.S_IMODE(os.fstat(self.descriptor).st_mode)
        self.pristine = self._state()

    def clean(self) -> bool:
        """Whether nothing is left of the last job, after deleting what it left."""
        if self._state() == self.pristine:
            return True
        try:
            if stat.S_IMODE(os.fstat(self.descriptor).st_mode) != self.mode:
                os.fchmod(self.descriptor, self.mode)
            _empty(self.descriptor, _MAX_DEPTH)
            os.utime(self.descriptor)  # the time of the last change would be a message to the next job
            empty = not os.listdir(self.descriptor)
        except (OSError, RecursionError):
            return False
        self.pristine = self._state()
        return empty

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.descriptor)

    def _state(self) -> tuple[int, ...]:
        """Differs after anything was created in the directory, even if it was deleted again."""
        now = os.fstat(self.descriptor)
        return now.st_mtime_ns, now.st_ctime_ns, now.st_atime_ns, now.st_nlink, now.st_size, now.st_mode


def _empty(directory: int, depth: int) -> None:
    """Delete everything below an open directory, without following links. Raises OSError."""
    if depth == 0:
        raise OSError("nested too deep")
    for name in os.listdir(directory):
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            os.chmod(name, 0o700, dir_fd=directory)
            child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                _empty(child, depth - 1)
            finally:
                os.close(child)
            os.rmdir(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)
