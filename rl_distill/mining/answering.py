"""Greedy answers of a student to the problems of a file, in a process that ends with its models.

May assume the config of a run, under whose template, lengths and graders the problems are asked. Started by rounds.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import RunConfig, load_config
from ..errors import errors_in_one_line
from ..files import write_atomically


def answer(config: RunConfig, student: Path, problems: Path, out: Path) -> int:
    """Writes one record for each problem and returns their number; the file is whole or not there."""
    from .. import distributed
    from ..data.problems import load_problems
    from ..evals.evaluation import evaluate
    from ..models.loading import load_model, load_tokenizer, student_dtype

    tokenizer = load_tokenizer(str(student), who="student")
    model: Any = load_model(str(student), student_dtype(config), None, who="student").to(distributed.device())
    data = dataclasses.replace(config.data, mixture=None)
    found = evaluate(model, tokenizer, load_problems(data, str(problems), "mining", tokenizer), config)
    rows = zip(found.problems, found.completions, found.grades, strict=True)
    records = [
        {"task": problem.task, "prompt": problem.prompt, "completion": completion.text, "grade": grade}
        for problem, completion, grade in rows
    ]
    write_atomically(out, "".join(json.dumps(record) + "\n" for record in records))
    return len(records)


@errors_in_one_line()
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("config", "student", "problems", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    from .. import distributed

    config: RunConfig = load_config(args.config)
    distributed.set_threads(config.num_threads)
    number = answer(config, args.student, args.problems, args.out)
    print(f"{args.out}: {number} answers")


if __name__ == "__main__":
    main()
