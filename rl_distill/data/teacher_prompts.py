"""What the teacher is shown where `teacher.prompt_template` gives it more than the student: hints, solutions, a role.

It may assume problems as they were loaded. The student's prompts stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..config import ConfigError, DataConfig
from ..models.tokenizers import prompt_ids
from ..types import Problem
from .prompts import RowError, check_template, filled, in_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NAME = "teacher.prompt_template"


def as_teacher_sees(
    template: str, data: DataConfig, problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase
) -> list[Problem]:
    """The problems with the teacher's prompts. Raises ConfigError for a template that a problem cannot fill."""
    if problems:
        columns = sorted({name for problem in problems for name in problem.columns})
        check_template(template, ["prompt", "solution", *columns], NAME)
    return [_seen(template, data, problem, tokenizer) for problem in problems]


def _seen(template: str, data: DataConfig, problem: Problem, tokenizer: PreTrainedTokenizerBase) -> Problem:
    try:
        row = {**problem.columns, "solution": problem.solution or problem.columns.get("solution")}
        if problem.messages is None:
            return replace(problem, prompt=filled(template, row | {"prompt": problem.prompt}))
        last = max((i for i, m in enumerate(problem.messages) if m["role"] == "user"), default=None)
        if last is None:
            raise RowError("the chat has no user turn to put it into")
        messages = [dict(message) for message in problem.messages]
        messages[last]["content"] = filled(template, row | {"prompt": messages[last]["content"]})
        return replace(problem, prompt=in_template(data, messages, problem.columns, tokenizer), messages=messages)
    except RowError as error:
        raise ConfigError(f"{NAME}: problem {problem.key!r}: {error}") from error


def prompt_table(
    template: str, data: DataConfig, problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase
) -> dict[tuple[int, ...], list[int]]:
    """The student's prompt, as token ids, to the teacher's.

    Raises ConfigError where one prompt of the student has two of the teacher: scores could not tell which is meant.
    """
    seen = as_teacher_sees(template, data, problems, tokenizer)
    ours = prompt_ids(tokenizer, [problem.prompt for problem in problems])
    theirs = prompt_ids(tokenizer, [problem.prompt for problem in seen])
    table: dict[tuple[int, ...], list[int]] = {}
    for problem, own, other in zip(problems, ours, theirs, strict=True):
        if table.setdefault(tuple(own), other) != other:
            raise ConfigError(
                f"{NAME}: problem {problem.key!r} has the prompt of another problem with other columns, so that the "
                "teacher would see two texts for one prompt: drop one of them, or use no column but {prompt}"
            )
    return table
