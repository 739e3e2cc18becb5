"""`rl-distill ppo`: the same program as `accelerate launch launch/ppo.py`."""

from __future__ import annotations

from collections.abc import Sequence

from ..config.command_line import parse
from .starting import start


def main(argv: Sequence[str]) -> int:
    return start("ppo", "ppo.py", argv, parse)
