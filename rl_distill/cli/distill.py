"""`rl-distill distill`: distillation by itself. The same program as `accelerate launch launch/distill.py`."""

from __future__ import annotations

from collections.abc import Sequence

from ..config.command_line import parse_distill
from .starting import start


def main(argv: Sequence[str]) -> int:
    return start("distill", "distill.py", argv, parse_distill)
