"""Finds installed packages with all that they need, for programs in the sandbox and for tests in the judge.

Runs in the trainer's process, in whose environment the packages are installed. Imports none of them.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from importlib.machinery import ModuleSpec

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def locate(packages: Sequence[str], optional: bool = False) -> dict[str, str]:
    """{name: path} of packages, of what they depend on, and of the libraries that lie beside them.

    Raises ValueError for one that is not installed, unless these are `optional`.
    """
    found: dict[str, str] = {}
    for name in packages:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or spec.origin is None:
            if optional:
                continue
            raise ValueError(f"packages: {name!r} is not an installed package")
        found.update(_entry(spec))
        owners = [name] if _is_distribution(name) else metadata.packages_distributions().get(name, [])
        for distribution in _with_requirements(owners):
            found.update(_entries(distribution))
    return found


def _is_distribution(name: str) -> bool:
    """Whether a distribution bears the name of its package: the usual case, and far quicker to find than others."""
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _entry(spec: ModuleSpec) -> Iterator[tuple[str, str]]:
    """The directory of a package, or the file of a module."""
    folders = spec.submodule_search_locations
    path = os.path.realpath(folders[0] if folders else str(spec.origin))
    yield os.path.basename(path), path


def _with_requirements(names: Iterable[str]) -> Iterator[metadata.Distribution]:
    """The distributions named and all that they require without extras, as far as they are installed."""
    waiting, seen = list(names), set[str]()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another system or version of Python
            continue
        yield distribution
        for requirement in distribution.requires or ():
            words, _, marker = requirement.partition(";")
            match = _NAME.match(words.strip())
            if match is not None and "extra" not in marker:
                waiting.append(match[0])


def _entries(distribution: metadata.Distribution) -> Iterator[tuple[str, str]]:
    """Top-level folders and modules of a distribution."""
    tops = {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}
    for top in tops:
        path = os.path.realpath(str(distribution.locate_file(top)))
        if os.path.exists(path) and not top.endswith((".pth", ".egg-link")) and not top.startswith("__editable__"):
            yield top, path
