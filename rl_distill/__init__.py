"""Train a small student model with PPO under a teacher: `from rl_distill import Distiller`.

Nothing heavy is imported until a name is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Distiller

__all__ = ["Distiller"]


def __getattr__(name: str) -> Any:
    if name == "Distiller":
        from .api import Distiller

        return Distiller
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
