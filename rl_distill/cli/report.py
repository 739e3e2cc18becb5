"""`rl-distill report RUN [RUN ...]`: one HTML page about training runs or evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import OneLineParser


def main(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog="rl-distill report", description="One HTML page about one or several runs.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output_dir of a training run or evaluation")
    parser.add_argument("--out", type=Path, help="file to write (default: report.html in the first RUN)")
    args = parser.parse_args(list(argv))

    from ..reporting.html import write

    print(write(args.runs, args.out))
    return 0
