"""`rl-distill eval`: evaluates causal language models. The same program as `accelerate launch launch/eval.py`."""

from __future__ import annotations

from collections.abc import Sequence

from ..evals.command_line import parse
from .starting import start


def main(argv: Sequence[str]) -> int:
    return start("eval", "eval.py", argv, parse)
