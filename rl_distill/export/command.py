"""`rl-distill export`: a student in the format it is deployed in. Imports nothing heavy until it runs."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from ..config import ConfigError
from ..errors import UserError

FORMATS = ("hf", "int8", "onnx", "onnx-int8", "gguf")
GGUF_WEIGHTS = ("f32", "f16", "q8_0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("student", help="folder or hub id")
    add("--format", required=True, choices=FORMATS)
    add("--weights", choices=GGUF_WEIGHTS, default="q8_0", help="of --format gguf (default: q8_0)")
    add("--out", required=True, type=Path, help="the folder to write; must not exist")
    add("--texts", type=Path, help="texts to compare on: .txt, .jsonl, .parquet (default: 1,000 generated ones)")
    add("--max_tokens", type=int, default=8192, help="tokens to compare on")
    add("--force", action="store_true", help="export also where a limit is not met; the certificate says so")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the artefact and prints its certificate. Raises UserError where a limit or a setting is not met."""
    try:
        return _export(args)
    except OSError as error:  # a model that is neither a folder nor reachable
        raise UserError(" ".join(str(error).split())[:300]) from error


def _export(args: argparse.Namespace) -> int:
    from ..progress import quiet_libraries
    from .certificate import summary
    from .create import export

    if args.max_tokens < 1:
        raise ConfigError(f"max_tokens: {args.max_tokens} is not at least 1")
    quiet_libraries()
    command = shlex.join(["rl-distill", *sys.argv[1:]])
    given = {name: getattr(args, name) for name in ("weights", "texts", "max_tokens", "force")}
    found = export(args.student, args.out, args.format, **given, command=command)
    print(summary(found))
    print(args.out)
    return 0
