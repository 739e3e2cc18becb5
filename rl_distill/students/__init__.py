"""Students cut from their teacher: fewer layers, heads, channels, tokens. See docs/students.md.

`init_student` writes a folder that `from_pretrained` loads, with a card. Nothing here trains. Names are loaded when
they are asked for, so that a command line can parse its arguments without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calibration import Calibration, Row, read_rows
    from .card import StudentCard
    from .create import init_student
    from .shape import StudentShapeConfig, parse_student_arch

__all__ = [
    "Calibration",
    "Row",
    "StudentCard",
    "StudentShapeConfig",
    "init_student",
    "parse_student_arch",
    "read_rows",
]

_MODULES = {
    "Calibration": "calibration",
    "Row": "calibration",
    "read_rows": "calibration",
    "StudentCard": "card",
    "init_student": "create",
    "StudentShapeConfig": "shape",
    "parse_student_arch": "shape",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
