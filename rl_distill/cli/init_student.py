"""`rl-distill init-student`: a smaller student cut from its teacher. The options are those of rl_distill/students."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..students.command import add_arguments


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="rl-distill init-student",
        description="Makes a smaller student from its teacher: fewer layers, heads, channels or tokens.",
        allow_abbrev=False,
    )
    add_arguments(parser)
    args = parser.parse_args(list(argv))
    return args.run(args)
