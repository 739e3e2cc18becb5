"""`rl-distill rounds`: train, mine the errors, train on. The options are those of rl_distill/mining."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    from ..mining import rounds_command

    return rounds_command.main(argv)
