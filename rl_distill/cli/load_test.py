"""`rl-distill load-test`: latency by load of a server on this machine. The options are those of rl_distill/serving."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import OneLineParser
from ..serving.command import add_load_test_arguments, run_load_test


def main(argv: Sequence[str]) -> int:
    parser = OneLineParser(
        prog="rl-distill load-test",
        description="Measures latency under load: random arrivals at increasing rates. Loopback only.",
    )
    add_load_test_arguments(parser)
    return run_load_test(parser.parse_args(list(argv)))
