"""`rl-distill serve`: an OpenAI-compatible server for a student. The options are those of rl_distill/serving."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import OneLineParser
from ..serving.command import add_serve_arguments, run_serve


def main(argv: Sequence[str]) -> int:
    parser = OneLineParser(
        prog="rl-distill serve",
        description="Serves a student over HTTP as OpenAI's completions and chat completions.",
    )
    add_serve_arguments(parser)
    return run_serve(parser.parse_args(list(argv)))
