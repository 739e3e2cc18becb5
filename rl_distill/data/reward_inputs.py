"""What reward functions are handed for problems and completions: as TRL's GRPOTrainer hands it, chat as messages.

It may assume one completion per problem, in order. It will not score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..types import Completion, Finish, Problem


def reward_inputs(problems: Sequence[Problem], completions: Sequence[Completion]) -> dict[str, Any]:
    """The keywords of `RewardBlend.start`: prompts, completions, completion_ids, columns.

    A problem with messages has its prompt and its completion as messages; the column `rendered_prompt` then holds the
    text that the model continued.
    """
    return {
        "prompts": [problem.prompt if problem.messages is None else problem.messages for problem in problems],
        "completions": [
            completion.text if problem.messages is None else [{"role": "assistant", "content": completion.text}]
            for problem, completion in zip(problems, completions, strict=True)
        ],
        "completion_ids": [completion.token_ids for completion in completions],
        "columns": columns_of(problems, completions),
    }


def columns_of(problems: Sequence[Problem], completions: Sequence[Completion]) -> dict[str, list]:
    """The dataset columns as reward functions receive them: one list per column, None where a problem lacks it."""
    names = sorted({name for problem in problems for name in problem.columns})
    columns: dict[str, list] = {name: [problem.columns.get(name) for problem in problems] for name in names}
    columns["task"] = [problem.task for problem in problems]
    columns["finished"] = [completion.finish is Finish.STOP for completion in completions]
    columns["rendered_prompt"] = [problem.prompt for problem in problems]
    return columns
