"""`rl-distill serve`: an OpenAI-compatible server for a student. The options are those of rl_distill/serving."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..serving.command import add_serve_arguments, run_serve


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="rl-distill serve",
        description="Serves a student over HTTP as OpenAI's completions and chat completions.",
        allow_abbrev=False,
    )
    add_serve_arguments(parser)
    return run_serve(parser.parse_args(list(argv)))
