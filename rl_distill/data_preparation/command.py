"""`rl-distill prepare-data`: its options. Imports nothing heavy until it runs."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from ..config.ranges import Interval
from ..errors import UserError

KINDS = ("renamed", "numbers")
SCRIPTS = ("latin", "greek", "cyrillic", "arabic", "devanagari", "bengali", "telugu", "thai", "cjk")
NUMBERS = {
    "min_words": (int, 3, "[0, inf)", "fewest words of a prompt"),
    "max_characters": (int, 20_000, "[1, inf)", "most characters of a prompt"),
    "min_letters": (float, 0.4, "[0, 1]", "share of letters, digits and signs among visible characters"),
    "max_repeated_lines": (float, 0.3, "[0, 1]", "share of lines that repeat an earlier one"),
    "ngram": (int, 13, "[1, inf)", "words that a row may not share with a test set"),
    "near_duplicates": (float, 0.6, "(0, 1]", "similarity from which texts are compared closely"),
    "min_agreement": (float, 0.0, "[0, 1]", "smallest share of a row's most frequent label"),
    "seed": (int, 0, "[0, 4294967295]", "of splits and augmentation"),
    "processes": (int, 1, "[1, 256]", "worker processes; the output is the same for any number"),
}
"""Name: type, default, range, help."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("sources", nargs="+", metavar="IN", help=".jsonl (streamed), .json, .parquet, .csv, .gz, folder or hub id")
    add("--out", required=True, type=Path, help="the folder to write; new or empty")
    add("--prompt_column", help="default: prompt, question, text, problem, instruction or messages")
    add("--test_set", action="append", default=[], metavar="FILE", help="problems that no row may contain; repeatable")
    add("--split", default="", metavar="NAME=SHARE,...", help="such as validation=0.05,test=0.05; the rest is train")
    add("--stratify", metavar="COLUMN", help="every split has the same shares of its values")
    add("--key", metavar="COLUMN", help="rows of one value stay in one split")
    add("--labels", default="", metavar="COLUMNS", help="columns with annotators' labels, for Fleiss' kappa")
    add("--augment", default="", metavar="KINDS", help=f"add rows to train: {', '.join(KINDS)}")
    add(
        "--writers",
        metavar="FILE.py",
        help="with solve(prompts) and any of paraphrase(prompts), translate(prompts) and translate_back(texts), "
        "synonyms(prompts): each adds rows to train where the answer to the new text is graded right",
    )
    add("--script", choices=SCRIPTS, help="keep rows whose letters are mostly of this script")
    add("--without_gold", action="store_true", help="keep rows with neither an answer nor tests")
    add("--no_gold_check", action="store_true", help="do not ask the graders about gold answers")
    add("--exact_only", action="store_true", help="keep near duplicates")
    for name, (kind, default, interval, words) in NUMBERS.items():
        add(f"--{name}", type=kind, default=default, help=f"{words} {interval} (default: {default})")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prepares and prints where the report is."""
    shares = parse_shares(args.split)
    augment, labels = _list(args.augment), _list(args.labels)
    for name, (_, _, interval, _) in NUMBERS.items():
        if getattr(args, name) not in Interval.parse(interval):
            raise UserError(f"--{name} {getattr(args, name)} is not in {interval}")
    unknown = [kind for kind in augment if kind not in KINDS]
    if unknown:
        raise UserError(f"--augment {unknown[0]}: there are {', '.join(KINDS)}")
    if len(labels) == 1:
        raise UserError("--labels needs two columns or more: agreement is between annotators")
    return _prepare(args, shares, augment, labels)


def _prepare(args: argparse.Namespace, shares: dict[str, float], augment: list[str], labels: list[str]) -> int:
    from .prepare import prepare
    from .rules import Rules
    from .settings import Settings

    limits = {n: getattr(args, n) for n in ("min_words", "max_characters", "min_letters", "max_repeated_lines")}
    settings = Settings(
        sources=tuple(args.sources),
        out=args.out,
        prompt_column=args.prompt_column,
        rules=Rules(**limits, needs_gold=not args.without_gold, script=args.script),
        check_gold=not args.no_gold_check,
        test_sets=tuple(args.test_set),
        near_duplicates=None if args.exact_only else args.near_duplicates,
        shares=shares,
        labels=tuple(labels),
        augment=tuple(augment),
        writers=args.writers,
        **{n: getattr(args, n) for n in ("ngram", "stratify", "key", "min_agreement", "seed", "processes")},
    )
    report = prepare(settings, shlex.join(["rl-distill", *sys.argv[1:]]))
    removed = ", ".join(f"{reason} {number}" for reason, number in report["removed"].items()) or "none"
    print(f"{report['rows_read']} rows read; removed: {removed}")
    for name, counts in report["splits"].items():
        print(f"{args.out / (name + '.jsonl')}: {counts['rows']} rows")
    print(f"{args.out / 'report.md'}")
    return 0


def parse_shares(text: str) -> dict[str, float]:
    """`validation=0.05,test=0.1` as numbers; UserError where one is none, or nothing is left for train."""
    shares: dict[str, float] = {}
    for part in _list(text):
        name, _, number = part.partition("=")
        try:
            shares[name] = float(number)
        except ValueError:
            raise UserError(f"--split {part}: write NAME=SHARE, such as validation=0.05") from None
        if not name.isidentifier() or name in ("train", "removed") or not 0 < shares[name] < 1:
            raise UserError(f"--split {part}: a name other than train or removed, and a share in (0, 1)")
    if sum(shares.values()) >= 1:
        raise UserError(f"--split {text}: the shares leave nothing for train")
    return shares


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
