"""`rl-distill init-student`: a smaller student cut from its teacher. The options are those of rl_distill/students."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import OneLineParser
from ..students.command import add_arguments


def main(argv: Sequence[str]) -> int:
    parser = OneLineParser(
        prog="rl-distill init-student",
        description="Makes a smaller student from its teacher: fewer layers, heads, channels or tokens.",
    )
    add_arguments(parser)
    args = parser.parse_args(list(argv))
    return args.run(args)
