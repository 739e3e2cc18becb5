"""The console script `rl-distill COMMAND ...`: a table of sub-commands, each in a module with `main(argv)`.

Only the chosen module is imported, so `--help` answers at once. A new sub-command is one line in COMMANDS.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from ..config.reading import nearest
from ..errors import errors_in_one_line


@dataclass(frozen=True)
class Command:
    """A sub-command. `module` defines `main(argv: Sequence[str]) -> int`, the exit status, and its own parser."""

    name: str
    help: str
    module: str


COMMANDS = (
    Command("ppo", "train a student with PPO under a teacher (launch/ppo.py)", "rl_distill.cli.ppo"),
    Command("prepare-data", "clean, check, deduplicate and split training rows", "rl_distill.cli.prepare_data"),
    Command("mine", "collect wrongly answered problems for the next run", "rl_distill.cli.mine"),
    Command("rounds", "rounds of PPO that learn from the last round's errors", "rl_distill.cli.rounds"),
    Command("init-student", "cut a smaller student from its teacher", "rl_distill.cli.init_student"),
    Command("distill", "distil a student without RL (launch/distill.py)", "rl_distill.cli.distill"),
    Command("reward-model", "train a reward model (launch/reward_model.py)", "rl_distill.cli.reward_model"),
    Command("eval", "evaluate any causal language model (launch/eval.py)", "rl_distill.cli.eval"),
    Command("export", "export a student to INT8, ONNX or GGUF, with a certificate", "rl_distill.cli.export"),
    Command("doctor", "check models, data and memory before a long run", "rl_distill.cli.doctor"),
    Command("report", "write an HTML page about one or more runs", "rl_distill.cli.report"),
    Command("serve", "serve a student over HTTP, OpenAI-compatible", "rl_distill.cli.serve"),
    Command("load-test", "measure the latency of a local server under load", "rl_distill.cli.load_test"),
    Command("list", "list the available rewards, tasks, configs or models", "rl_distill.cli.listing"),
    Command(
        "check-sandbox", "show which isolation this machine offers for untrusted code", "rl_distill.cli.check_sandbox"
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status of a sub-command: 0 success, 1 a problem was found, 2 the command could not be carried out."""
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if name == "--version":
        print(version("rl_distill"))
        return 0
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None:
        print(f"error: no command {name!r}; {nearest(name, (c.name for c in COMMANDS))}", file=sys.stderr)
        return 2
    with errors_in_one_line():
        return importlib.import_module(command.module).main(rest)


def overview() -> str:
    width = max(len(command.name) for command in COMMANDS)
    lines = [f"  {command.name.ljust(width)}  {command.help}" for command in COMMANDS]
    usage = ["usage: rl-distill COMMAND [options]", "", "Distil a large model into a small one with PPO."]
    return "\n".join(
        [
            *usage,
            "",
            "commands:",
            *lines,
            "",
            "rl-distill COMMAND --help shows a command's options, rl-distill --version the version.",
        ]
    )
