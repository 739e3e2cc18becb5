"""`rl-distill mine`: its options. Imports nothing heavy until it runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..config.ranges import Interval
from ..errors import UserError

KINDS = ("renamed", "numbers")
NUMBERS = {
    "per_user": (int, 5, "[0, inf)", "problems that one user's feedback may bring"),
    "feedback_share": (float, 0.25, "[0, 1]", "part of the pool that feedback alone may bring"),
    "size": (int, 1000, "[1, inf)", "most problems of the pool, those failed most often first"),
    "share": (float, 0.2, "(0, 0.5]", "share of the pool in the next run's data.mixture"),
    "ngram": (int, 13, "[1, inf)", "words that a problem may not share with a test set"),
    "seed": (int, 0, "[0, 4294967295]", "of choices among equals and of augmentation"),
}
"""Name: type, default, range, help."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("sources", nargs="+", type=Path, metavar="RUN|RESULTS|FEEDBACK.jsonl", help="where the answers are")
    add("--problems", nargs="+", required=True, metavar="FILE", help="problems with gold answers that you trust")
    add("--out", required=True, type=Path, help="the pool, a new .jsonl; rejected answers go beside it")
    add("--prompt_column", help="of --problems; default: prompt, question, text, problem, instruction or messages")
    add("--test_set", action="append", default=[], metavar="FILE", help="problems that may not enter; repeatable")
    add("--augment", default="", metavar="KINDS", help=f"add rows like those that failed: {', '.join(KINDS)}")
    add("--teacher", metavar="FILE.py", help="with functions paraphrase(prompts) and solve(prompts) -> list of texts")
    for name, (kind, default, interval, words) in NUMBERS.items():
        add(f"--{name}", type=kind, default=default, help=f"{words} {interval} (default: {default})")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the pool and says how the next run takes it in."""
    for name, (_, _, interval, _) in NUMBERS.items():
        if getattr(args, name) not in Interval.parse(interval):
            raise UserError(f"--{name} {getattr(args, name)} is not in {interval}")
    kinds = [kind.strip() for kind in args.augment.split(",") if kind.strip()]
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise UserError(f"--augment {unknown[0]}: there are {', '.join(KINDS)}")
    if args.out.exists():
        raise UserError(f"--out {args.out} exists; name a new file")
    mined = _mine(args, kinds)
    _write(args, mined)
    return 0


def _mine(args: argparse.Namespace, kinds: list[str]) -> Any:
    from ..data_preparation.examine import HeldGrams
    from ..evals.decontamination import training_texts
    from .known import KnownProblems
    from .mine import Limits, mine
    from .sources import answers_in

    known = KnownProblems.read(args.problems, args.prompt_column)
    tests = HeldGrams.of([text for path in args.test_set for text in training_texts(path)], args.ngram)
    answers = [answer for path in args.sources for answer in answers_in(path)]
    limits = Limits(args.per_user, args.feedback_share, args.size)
    teacher = {} if args.teacher is None else {name: _callable(args.teacher, name) for name in ("paraphrase", "solve")}
    return mine(answers, known, tests, limits, augment=kinds, seed=args.seed, column=args.prompt_column, **teacher)


def _callable(path: str, name: str) -> Any:
    from reward_models.registry import resolve

    try:
        return resolve(f"{path}:{name}")
    except ValueError as error:
        raise UserError(f"--teacher {path}: {str(error).replace('reward ', '')}") from error


def _write(args: argparse.Namespace, mined: Any) -> None:
    from ..data_preparation.files import line_of
    from ..files import write_atomically
    from .mine import summary

    args.out.parent.mkdir(parents=True, exist_ok=True)
    found = summary(mined)
    rejected = args.out.with_suffix(".rejected.jsonl")
    write_atomically(rejected, "".join(map(line_of, mined.rejected)))
    write_atomically(args.out.with_suffix(".report.json"), json.dumps(found, indent=1) + "\n")
    write_atomically(args.out, "".join(map(line_of, mined.pool)))
    print(", ".join(f"{reason} {number}" for reason, number in found["answers"].items() if number))
    print(f"{args.out}: {found['pool_rows']} rows; {rejected}: {len(mined.rejected)} answers")
    if mined.pool:
        print(f"next run, in data.mixture: - {{train: {args.out}, name: mined, share: {args.share}}}, the others")
        print(f"sharing {1 - args.share:g}")
