"""`rl-distill prepare-data`: rows to train on. The options are those of rl_distill/data_preparation."""

from __future__ import annotations

from collections.abc import Sequence

from ..data_preparation.command import add_arguments
from ..errors import OneLineParser


def main(argv: Sequence[str]) -> int:
    parser = OneLineParser(
        prog="rl-distill prepare-data",
        description="Normalises, filters, checks, deduplicates, splits and augments rows, and reports every removal.",
    )
    add_arguments(parser)
    args = parser.parse_args(list(argv))
    return args.run(args)
