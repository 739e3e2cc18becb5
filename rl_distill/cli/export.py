"""`rl-distill export`: a student in the format it is deployed in. The options are those of rl_distill/export."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..export.command import add_arguments


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="rl-distill export",
        description="Writes a student in the format it is deployed in, with a certificate of what the format costs.",
        allow_abbrev=False,
    )
    add_arguments(parser)
    args = parser.parse_args(list(argv))
    return args.run(args)
