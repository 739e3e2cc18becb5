"""The options of `rl-distill serve` and `rl-distill load-test`. Imports nothing heavy until one runs."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import socket
from pathlib import Path

from ..errors import UserError
from .settings import Limits, VariantSpec, is_loopback, with_control

KEY_VARIABLE = "RLD_API_KEY"


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("student", help="folder or hub id")
    add("--variant", action="append", default=[], metavar="NAME=FOLDER:SHARE", help="another model and its share")
    add("--host", default="127.0.0.1", help="other than loopback only with an API key")
    add("--port", type=int, default=8000, help="0 takes a free one")
    add("--api_key", help=f"required from every client (default: the environment's {KEY_VARIABLE}, else none)")
    add("--feedback", type=Path, metavar="FILE", help="a JSONL file that POST /feedback appends to")
    add(
        "--canaries",
        type=Path,
        metavar="FILE",
        help="JSONL of prompt and answer, sent to every model at regular intervals",
    )
    add("--canary_seconds", type=float, default=300.0, help="from one round of canaries to the next; %(default)s")
    for field in dataclasses.fields(Limits):
        kind = float if isinstance(field.default, float) else int
        add(f"--{field.name}", type=kind, default=field.default, help=f"{field.metadata['range']}; %(default)s")


def run_serve(args: argparse.Namespace) -> int:
    limits = Limits(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Limits)})
    specs = with_control(args.student, [VariantSpec.parse(text) for text in args.variant])
    key = args.api_key or os.environ.get(KEY_VARIABLE) or None
    if not is_loopback(args.host) and key is None:
        raise UserError(f"--host {args.host} is reachable from other machines: set --api_key or {KEY_VARIABLE}")
    check_port(args.host, args.port)
    need("fastapi", "uvicorn", "prometheus_client")
    from ..progress import quiet_libraries
    from .app import create_app
    from .server import serve
    from .service import load_service, read_canaries

    quiet_libraries()
    try:
        canaries = None if args.canaries is None else read_canaries(args.canaries)
        service = load_service(specs, limits, args.feedback)
    except FileNotFoundError as error:
        raise UserError(str(error)) from error
    if canaries is not None:
        service.watch_canaries(canaries, max(1.0, args.canary_seconds))
    serve(create_app(service, key), args.host, args.port)
    return 0


def check_port(host: str, port: int) -> None:
    """UserError where the port cannot be had: a model takes minutes to load, so this is asked before."""
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port} is not between 0 and 65535")
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0].lower()
        raise UserError(f"--port {port} on {host}: {reason}; choose another, or 0 for a free one") from error


def need(*modules: str) -> None:
    """UserError where the extra `serve` is not installed."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{missing[0]} is not installed: pip install 'rl_distill[serve]'")


def add_load_test_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("url", help="of a server on this machine, such as http://127.0.0.1:8000")
    add("--rates", default="5,10,20,40,80", help="requests per second, one level after another; %(default)s")
    add("--seconds", type=float, default=10.0, help="per level; %(default)s")
    add("--max_tokens", type=int, default=8, help="of every request; %(default)s")
    add("--prompts", type=Path, help="a file with a prompt per line (default: additions of two numbers)")
    add("--max_requests", type=int, default=20_000, help="in all; %(default)s")
    add("--timeout_seconds", type=float, default=30.0, help="per request; %(default)s")
    add("--goal_seconds", type=float, default=1.0, help="target latency; %(default)s")
    add("--seed", type=int, default=0, help="of the arrivals; %(default)s")
    add("--api_key", help=f"default: the environment's {KEY_VARIABLE}")
    add("--out", type=Path, default=Path("load_test"), help="folder for load_test.json and load_test.md; %(default)s")


def run_load_test(args: argparse.Namespace) -> int:
    import asyncio

    from .load_test import HEADER, LoadTest, best_rate, row, run, write_report

    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out {args.out} is a file; name a folder")
    try:
        test = LoadTest(
            url=args.url,
            rates=_rates(args.rates),
            prompts=_prompts(args.prompts),
            api_key=args.api_key or os.environ.get(KEY_VARIABLE) or None,
            **{name: getattr(args, name) for name in NUMBERS},
        )
        print(*HEADER, sep="\n", flush=True)
        levels = asyncio.run(run(test, on_level=lambda level: print(row(level), flush=True)))
    except (ValueError, OSError) as error:  # ConfigError is a ValueError
        raise UserError(str(error)) from error
    write_report(test, levels, args.out)
    best = best_rate(levels, test.goal_seconds)
    print(f"best rate with p95 below {test.goal_seconds:g} s: {'none' if best is None else f'{best:g} requests/s'}")
    print(args.out)
    return 0


NUMBERS = ("seconds", "max_tokens", "max_requests", "timeout_seconds", "goal_seconds", "seed")


def _rates(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(rate) for rate in text.split(","))
    except ValueError as error:
        raise UserError(f"--rates {text}: write numbers with commas between them, such as 10,20,40") from error


def _prompts(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return tuple(f"What is {i} + {j}?" for i in range(10, 20) for j in range(10, 20))
    if not path.is_file():
        raise UserError(f"--prompts {path}: there is no such file")
    return tuple(line for line in path.read_text().splitlines() if line.strip())
