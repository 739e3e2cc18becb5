"""`rl-distill load-test`: latency by load of a server on this machine. The options are those of rl_distill/serving."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..serving.command import add_load_test_arguments, run_load_test


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="rl-distill load-test",
        description="Measures latency by load: requests arrive at random, at rates that rise. Loopback only.",
        allow_abbrev=False,
    )
    add_load_test_arguments(parser)
    return run_load_test(parser.parse_args(list(argv)))
