"""What the tasks that ask for a program share: the columns kept of a row, the grader, the form of a reference.

It may assume rows in the shapes of reward_models/code_problems.py. No text of a model runs outside the sandbox.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from reward_models.code_execution import program
from reward_models.code_problems import CODE_COLUMNS, check_of

from ..types import Problem
from .base import Graded, TaskError, check_answers
from .data import Row

EXTRACTION = "the last Python block that defines what is asked for, after </think>; without a fence the text"


def code_columns(task: str, key: str, row: Row) -> dict[str, Any]:
    """The columns of a row that judge programs; TaskError where they describe no test."""
    columns = {name: row[name] for name in CODE_COLUMNS if row.get(name) is not None}
    try:
        if check_of(columns) is None:
            raise TaskError(f"{task}: {key} has no tests; its columns are {', '.join(row)}")
    except ValueError as error:
        raise TaskError(f"{task}: {key}: {error}") from error
    return columns


def grade(problems: Sequence[Problem], texts: Sequence[str]) -> list[Graded]:
    """Metric `pass`; what was extracted is the program that was run."""
    scores = check_answers(problems, texts)
    return [
        Graded({"pass": score}, _program(problem, text))
        for problem, text, score in zip(problems, texts, scores, strict=True)
    ]


def fenced(code: str) -> str:
    return f"```python\n{code.strip(chr(10))}\n```" if code else ""


def first_solution(solutions: Any) -> str:
    """The first reference solution of a text, a list, or a list in JSON; empty where there is none."""
    if isinstance(solutions, str) and solutions.lstrip().startswith("["):
        try:
            solutions = json.loads(solutions)
        except ValueError:  # a text that starts with a bracket
            return solutions
    return (solutions[0] if solutions else "") if isinstance(solutions, list) else solutions or ""


def _program(problem: Problem, text: str) -> str:
    check = check_of(problem.columns)
    return "" if check is None else program(check, problem.prompt, text).source
