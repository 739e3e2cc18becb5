"""`rl-distill export`: a student in the format it is deployed in. The options are those of rl_distill/export."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import OneLineParser
from ..export.command import add_arguments


def main(argv: Sequence[str]) -> int:
    parser = OneLineParser(
        prog="rl-distill export",
        description="Exports a student to a deployment format, with a certificate of what the format costs.",
    )
    add_arguments(parser)
    args = parser.parse_args(list(argv))
    return args.run(args)
