"""Starts a program of launch/, in this process or, with `--launch` or `--num_processes`, under Accelerate.

May assume that launch/ and configs/ are in the checkout or inside the installed package. Reads no config itself: the
program's own parser runs first, so a mistake is one line from one process.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ..config.command_line import shipped_config
from ..config.reading import ConfigError, nearest
from ..provenance import COMMAND_VARIABLE

PACKAGE = Path(__file__).parents[1]


def start(name: str, program: str, argv: Sequence[str], parse: Callable[[Sequence[str], str], object]) -> int:
    """Runs launch/`program` as `rl-distill name argv` and returns its exit status.

    `parse` is the program's own command line; it exits with status 2 and one line on a mistake.
    """
    try:
        launcher, rest = launcher_of(argv)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    os.environ[COMMAND_VARIABLE] = shlex.join(["rl-distill", name, *argv])
    if not launcher:
        return run_here(program, rest, f"rl-distill {name}")
    parse(rest, f"rl-distill {name}")
    command = [sys.executable, "-m", "accelerate.commands.launch", *launcher, str(launch_file(program)), *rest]
    return subprocess.call(command)


def launcher_of(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(options of `accelerate launch`, the rest): no options unless `--launch` or `--num_processes` is given."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--launch")
    parser.add_argument("--num_processes", type=int)
    try:
        known, rest = parser.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from error
    if known.launch is None and known.num_processes is None:
        return [], rest
    if known.num_processes is not None and known.num_processes < 1:
        raise ConfigError(f"--num_processes must be at least 1, not {known.num_processes}")
    options = ["--config_file", str(launch_config(known.launch or "ddp"))]
    if known.num_processes is not None:
        options += ["--num_processes", str(known.num_processes)]
    return options, rest


def launch_config(name: str) -> Path:
    """Accelerate's config file: a path, or the name of one in configs/accelerate. ConfigError if there is none."""
    if Path(name).is_file():
        return Path(name)
    folder = shipped_config("accelerate")
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"--launch {name}: no such file or launch config; {nearest(name, known)}")
    if name.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(f"--launch {name} needs DeepSpeed: pip install 'rl_distill[deepspeed]'")
    return folder / f"{name}.yaml"


def launch_file(program: str) -> Path:
    """A program of launch/: the checkout's, else the one inside the installed package."""
    here = PACKAGE / "launch" / program
    return here if here.is_file() else PACKAGE.parent / "launch" / program


def run_here(program: str, argv: Sequence[str], shown_as: str) -> int:
    """Runs the program in this process. It answers `--help` and mistakes under the name it was called by."""
    path = launch_file(program)
    spec = importlib.util.spec_from_file_location(f"rl_distill_launch_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(argv, shown_as) or 0
