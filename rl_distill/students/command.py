"""`rl-distill init-student`: a smaller student from a teacher's folder. Imports nothing heavy until it runs."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from ..config import ConfigError
from ..errors import UserError
from .shape import StudentShapeConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--teacher", required=True, help="folder or hub id")
    add("--out", required=True, type=Path, help="the folder to write; must not exist")
    add("--layers", help="50%%, 0,2,5 or CRITERION:AMOUNT: uniform, block_influence, cosine, activation_norm, learned")
    add("--heads", help="key/value groups to keep: 50%%, activation_norm:AMOUNT or weight_variance:AMOUNT")
    add("--ffn", help="feed-forward channels to keep: 0.5, activation_norm:AMOUNT or magnitude:AMOUNT")
    add("--hidden", help="residual channels to keep: 0.5 or a number")
    add("--vocab", metavar="CORPUS", help="keep the tokens of these texts only (.txt, .jsonl, .parquet)")
    add("--calibration", type=Path, help="texts to measure importance on: .txt, .jsonl, .parquet; rollouts are best")
    add("--held_out", type=Path, help="texts to judge the student by (default: every fifth row of --calibration)")
    add("--verified", metavar="COLUMN", help="only calibration rows whose COLUMN is at least 1, such as task_check")
    add("--max_length", type=int, default=512, help="tokens per row")
    add("--max_tokens", type=int, default=8192, help="tokens to measure on, and again to judge by")
    add("--search_tokens", type=int, default=1024, help="tokens that each trial of --layers learned reads")
    add("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"], help="default: the teacher's")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the student and prints its card. Raises UserError where a setting or a file is wrong."""
    try:
        return _create(args, StudentShapeConfig(args.layers, args.heads, args.ffn, args.hidden, args.vocab))
    except OSError as error:  # a model that is neither a folder nor reachable
        raise UserError(" ".join(str(error).split())[:300]) from error


def _create(args: argparse.Namespace, shape: StudentShapeConfig) -> int:
    from .calibration import Calibration, read_rows
    from .card import summary
    from .create import init_student

    calibration = None
    if args.calibration is not None:
        held_out = None if args.held_out is None else read_rows(args.held_out)
        limits = {name: getattr(args, name) for name in ("max_length", "max_tokens", "search_tokens")}
        calibration = Calibration.of(read_rows(args.calibration, args.verified), held_out, **limits)
    elif args.held_out is not None or args.verified is not None:
        raise ConfigError("--held_out and --verified need --calibration")
    command = shlex.join(["rl-distill", *sys.argv[1:]])
    card = init_student(args.teacher, args.out, shape, calibration, dtype=args.dtype, command=command)
    print(summary(card))
    print(args.out)
    return 0
