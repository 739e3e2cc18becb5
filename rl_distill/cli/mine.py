"""`rl-distill mine`: wrong answers as the next run's pool. The options are those of rl_distill/mining."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..mining.command import add_arguments


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="rl-distill mine",
        description="Problems that were answered wrongly, checked by the graders, as a pool for data.mixture.",
        allow_abbrev=False,
    )
    add_arguments(parser)
    args = parser.parse_args(list(argv))
    return args.run(args)
