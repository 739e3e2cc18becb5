"""`rl-distill reward-model`: trains a reward model. The same program as `accelerate launch launch/reward_model.py`."""

from __future__ import annotations

from collections.abc import Sequence

from ..reward_model.settings import parse
from .starting import start


def main(argv: Sequence[str]) -> int:
    return start("reward-model", "reward_model.py", argv, parse)
