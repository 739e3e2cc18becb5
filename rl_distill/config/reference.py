"""Every setting of a settings class with its default, range and meaning: what `--help` and the reference print.

It may assume the source of the settings classes, whose fields have their meaning as a string below them. No torch.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .ranges import Interval, range_of


@dataclass(frozen=True)
class Setting:
    """One setting by its dotted name. `range` is None for one that is no number; `meaning` is one line."""

    name: str
    default: Any
    range: Interval | None
    meaning: str

    def __str__(self) -> str:
        allowed = f" ({self.range})" if self.range is not None else ""
        return f"{self.name} = {self.default!r}{allowed}: {self.meaning}"


def settings_of(cls: type, prefix: str = "", default: Any = None) -> Iterator[Setting]:
    """Every setting of the class and of the sections in it, in the order of the source.

    `default` holds the defaults; None takes those of the class.
    """
    default = cls() if default is None else default
    hints, meanings = typing.get_type_hints(cls), meanings_of(cls)
    for field in dataclasses.fields(cls):
        hint, name, value = hints[field.name], prefix + field.name, getattr(default, field.name)
        section = next((part for part in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(part)), None)
        if section is not None:
            yield from settings_of(typing.cast(type, section), f"{name}.", value)
        else:
            yield Setting(name, value, range_of(field), meanings.get(field.name, ""))


def meanings_of(cls: type) -> dict[str, str]:
    """By field: the string below it in the source of its class, as one line; those of base classes too."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            found |= _strings_below(typing.cast(ast.ClassDef, ast.parse(inspect.getsource(base)).body[0]))
    return found


def _strings_below(source: ast.ClassDef) -> dict[str, str]:
    found = {}
    for field, below in zip(source.body, source.body[1:]):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(below.value)).split())
    return found
