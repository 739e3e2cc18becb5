"""Keeps the one writable directory of a slot empty between jobs.

Runs in the zygote, or in the judge, while no program is alive.
A directory that cannot be emptied is reported, and the slot is then replaced as a whole.
"""

from __future__ import annotations

import fcntl
import os
import stat


class Scratch:
    """The scratch directory behind a descriptor opened once: it stays usable when a program takes away its mode."""

    def __init__(self, path: str, descriptor: int | None = None):
        """`descriptor`: the number to keep the directory open under, if it matters."""
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if descriptor not in (None, self.descriptor):
            found = self.descriptor
            self.descriptor = os.dup2(found, descriptor, inheritable=False)
            os.close(found)
        self.mode = stat.S_IMODE(os.fstat(self.descriptor).st_mode)
        self.pristine = self._state()

    def clean(self) -> bool:
        """Whether nothing is left of the last job, after deleting what it left."""
        if self._state() == self.pristine and not os.listdir(self.descriptor):  # clocks of old kernels tick every 4 ms
            return True
        try:
            if stat.S_IMODE(os.fstat(self.descriptor).st_mode) != self.mode:
                os.fchmod(self.descriptor, self.mode)
            _empty(self.descriptor)
            os.utime(self.descriptor)  # the time of the last change would be a message to the next job
            empty = not os.listdir(self.descriptor)
        except OSError:
            return False
        self.pristine = self._state()
        return empty

    def lock(self) -> bool:
        """Whether nobody else has locked the directory. The lock lasts as long as the descriptor is open."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.descriptor)

    def remove(self) -> None:
        """Delete the directory with all that is in it and give the descriptor back. Raises OSError if it stays."""
        self.clean()
        self.close()
        os.rmdir(self.path)

    def _state(self) -> tuple[int, ...]:
        """Differs after anything was created in the directory, even if it was deleted again."""
        now = os.fstat(self.descriptor)
        return now.st_mtime_ns, now.st_ctime_ns, now.st_atime_ns, now.st_nlink, now.st_size, now.st_mode


def _empty(directory: int) -> None:
    """Delete everything below an open directory, without following links. Raises OSError.

    A program can nest directories deeper than paths and descriptors reach: this goes down by name and up by `..`.
    """
    here, names = os.dup(directory), os.listdir(directory)
    above: list[tuple[str, list[str]]] = []  # the directories on the way down, each with what is left beside it
    try:
        while names or above:
            if not names:
                here = _moved(here, "..")
                name, names = above.pop()
                os.rmdir(name, dir_fd=here)
                continue
            name = names.pop()
            if not stat.S_ISDIR(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=here)
                continue
            os.chmod(name, 0o700, dir_fd=here)
            here = _moved(here, name)
            above.append((name, names))
            names = os.listdir(here)
    finally:
        os.close(here)


def _moved(here: int, name: str) -> int:
    """The directory `name` of the open directory `here`, opened in its place."""
    there = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
    os.close(here)
    return there
