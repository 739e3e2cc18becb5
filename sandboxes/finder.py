"""Makes certain packages importable, and no others that lie beside them. For the judge, and for workers without a root.

Imports nothing but importlib.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder


class Finder:
    """Lets a process without site-packages import certain packages: an entry for `sys.meta_path`."""

    def __init__(self, places: dict[str, str]):
        self.folders = {name.partition(".")[0]: os.path.dirname(path) for name, path in places.items()}

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """As importlib wants it: below a package the usual finder does."""
        folder = self.folders.get(name) if path is None else None
        return None if folder is None else PathFinder.find_spec(name, [folder])
