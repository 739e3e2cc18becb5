"""`rl-distill mine`: wrong answers as the next run's pool. The options are those of rl_distill/mining."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import OneLineParser
from ..mining.command import add_arguments


def main(argv: Sequence[str]) -> int:
    parser = OneLineParser(
        prog="rl-distill mine",
        description="Collects wrongly answered problems, checked by the graders, into a pool for data.mixture.",
    )
    add_arguments(parser)
    args = parser.parse_args(list(argv))
    return args.run(args)
