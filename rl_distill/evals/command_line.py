"""The command line of launch/eval.py. Imports no torch, so that `--help` and a typo answer at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import ConfigError
from ..config.command_line import check_writable
from ..errors import OneLineParser
from ..tasks.base import SHORT_NAMES, Task, TaskError, check_name


@dataclass(frozen=True)
class Settings:
    """What is evaluated and how. `models`: label -> folder or hub id; the first, "model", is compared with the rest."""

    models: dict[str, str]
    tasks: tuple[str, ...]
    data_paths: dict[str, str]
    """By task name; "" holds for every task without one of its own. So do the protocols."""
    protocols: dict[str, str]
    output_dir: Path
    extra_tests_path: str | None
    num_samples: int
    ks: tuple[int, ...]
    temperature: float
    top_p: float
    max_new_tokens: int | None
    batch_size: int
    limit: int | None
    seed: int
    dtype: str
    speed: int
    training_data: str | None
    ngram: int
    start_anew: bool
    num_threads: int | None
    best_of: int = 0
    """Samples of the first model per problem, of which the reward model `by` chooses one; 0: none."""
    by: str | None = None
    readings_from: str | None = None
    """The teacher that reads the samples for a reward model with readings."""

    def data_path(self, task: str) -> str | None:
        """The local data of a task: its own, or a folder of its name under the common one, or the common one."""
        if task in self.data_paths:
            return self.data_paths[task]
        common = self.data_paths.get("")
        own = Path(common, task) if common else None
        return str(own) if own is not None and own.is_dir() else common

    def protocol(self, task: str) -> str | None:
        return self.protocols.get(task, self.protocols.get(""))

    def length(self, task: Task) -> int:
        """The most tokens an answer may have."""
        return self.max_new_tokens or task.max_new_tokens

    def sampling(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "top_p": self.top_p, "num_samples": self.num_samples}


def parser(program: str) -> OneLineParser:
    command = OneLineParser(
        prog=program,
        description="Evaluates any causal LM with the generation, graders and sandbox of the training code.",
    )
    add = command.add_argument
    add("--model", required=True, help="a folder or hub id")
    add("--tasks", nargs="+", required=True, help=f"{', '.join(SHORT_NAMES)}; your own: ./file.py:function")
    add("--compare", nargs="+", default=[], metavar="[NAME=]MODEL", help="NAME baseline and teacher give the gap")
    add("--data_path", nargs="+", default=[], metavar="[TASK=]PATH", help="local data in place of the hub's")
    add(
        "--output_dir", default="runs/eval", help="results.json and one .jsonl per task and model (default %(default)s)"
    )
    add(
        "--protocol",
        nargs="+",
        default=[],
        metavar="[TASK=]PROTOCOL",
        help="gsm8k: chat, 5-shot, 8-shot; humaneval: chat, base; triviaqa: chat, 0-shot, 5-shot",
    )
    add("--humaneval_plus", metavar="PATH", help="tests of HumanEval+ (rows of the hub's evalplus/humanevalplus)")
    add("--num_samples", type=int, default=1, help="completions per problem (default %(default)s)")
    add("--k", type=int, nargs="+", default=[1, 10, 100], help="pass@k for each k up to num_samples")
    add("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    add("--top_p", type=float, default=1.0)
    add("--max_new_tokens", type=int, help="default: the task's")
    add("--batch_size", type=int, default=32, help="completions generated together, per process")
    add("--limit", type=int, help="only the first problems, for a trial")
    add("--seed", type=int, default=0)
    add("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    add(
        "--speed", type=int, default=0, metavar="N", help="also measure latency and tokens/s of each model on N prompts"
    )
    add("--best_of", type=int, default=0, metavar="N", help="also sample N answers of --model, of which --by takes one")
    add("--by", metavar="FOLDER", help="the trained reward model that chooses (rl-distill reward-model)")
    add("--readings_from", metavar="TEACHER", help="the teacher that it reads, where it was trained with readings")
    add("--decontaminate", metavar="FILE", help="training prompts to look for test problems in")
    add("--ngram", type=int, default=13, help="words in a row that count as overlap (default %(default)s)")
    add("--start_anew", action="store_true", help="ignore the records of an interrupted evaluation")
    add("--num_threads", type=int, help="torch threads per process on CPU")
    return command


def parse(argv: Sequence[str] | None = None, program: str = "launch/eval.py") -> Settings:
    """The settings; exits with one clear line on anything wrong."""
    command = parser(program)
    args = command.parse_args(sys.argv[1:] if argv is None else list(argv))
    try:
        check(args)
        check_writable(Path(args.output_dir))
    except (ConfigError, TaskError) as error:
        command.fail(error)
    return Settings(
        models={"model": args.model} | dict(_pair(text) for text in args.compare),
        tasks=tuple(args.tasks),
        data_paths=dict(_of_task(text) for text in args.data_path),
        protocols=dict(_of_task(text) for text in args.protocol),
        output_dir=Path(args.output_dir),
        extra_tests_path=args.humaneval_plus,
        num_samples=args.num_samples,
        ks=tuple(k for k in args.k if k <= args.num_samples) if args.num_samples > 1 else (),
        temperature=args.temperature,
        top_p=args.top_p,
        max_new_tokens=args.max_new_tokens,
        batch_size=args.batch_size,
        limit=args.limit,
        seed=args.seed,
        dtype=args.dtype,
        speed=args.speed,
        training_data=args.decontaminate,
        ngram=args.ngram,
        start_anew=args.start_anew,
        num_threads=args.num_threads,
        best_of=args.best_of,
        by=args.by,
        readings_from=args.readings_from,
    )


LOWEST = {"num_samples": 1, "batch_size": 1, "ngram": 1, "limit": 1, "max_new_tokens": 1, "num_threads": 1, "speed": 0}


def check(args: argparse.Namespace) -> None:
    """ConfigError where a number is out of range, or options contradict each other."""
    for task in args.tasks:
        check_name(task)
    for name, lowest in LOWEST.items():
        if getattr(args, name) is not None and getattr(args, name) < lowest:
            raise ConfigError(f"--{name} must be at least {lowest}")
    if bool(args.best_of) != bool(args.by) or args.best_of == 1 or args.best_of < 0:
        raise ConfigError("--best_of N, of at least 2, and --by FOLDER belong together")
    if args.readings_from and not args.by:
        raise ConfigError("--readings_from TEACHER belongs to --by FOLDER")
    if args.best_of and args.num_samples > 1:
        raise ConfigError("--best_of is compared with one greedy answer: leave out --num_samples")
    if min(args.k) < 1:
        raise ConfigError("--k must be at least 1")
    if args.temperature < 0 or not 0 < args.top_p <= 1:
        raise ConfigError("--temperature must be at least 0, --top_p above 0 and at most 1")
    if args.num_samples > 1 and args.temperature == 0:
        raise ConfigError("--num_samples above 1 needs --temperature above 0: greedy samples are all the same")
    names = [name for name, _ in (_pair(text) for text in args.compare)]
    if len(set(names) | {"model"}) != len(names) + 1:
        raise ConfigError('--compare: two models have the same name ("model" is the first one\'s); write NAME=MODEL')
    for option in ("data_path", "protocol"):
        for task, _ in (_of_task(text) for text in getattr(args, option)):
            if task and task not in args.tasks:
                raise ConfigError(f"--{option}: {task!r} is none of the tasks {', '.join(args.tasks)}")


def _pair(text: str) -> tuple[str, str]:
    """(name, model) of NAME=MODEL, or of a model alone: its last path component."""
    name, equals, model = text.partition("=")
    return (name, model) if equals else (Path(text.rstrip("/")).name, text)


def _of_task(text: str) -> tuple[str, str]:
    """(task, value) of TASK=VALUE; the task "" of a value alone."""
    name, equals, value = text.partition("=")
    return (name, value) if equals else ("", text)
