"""MATH-500 (Lightman et al. 2023; Hendrycks et al. 2021): 500 competition problems, answers compared by value.

Protocols: `chat` (zero-shot, boxed) and `base` (zero-shot, "Problem: ... Solution:").
"""

from __future__ import annotations

from collections.abc import Sequence

from reward_models.math_answers import extract_answer

from ..types import Problem
from .base import Graded, Task, TaskOptions, check_answers
from .data import rows_of

HUB = "HuggingFaceH4/MATH-500"
PROMPTS = {
    "chat": "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}.",
    "base": "Problem:\n{problem}\n\nSolution:",
}


def math500(options: TaskOptions) -> Task:
    """MATH-500, competition problems; metric `accuracy`."""
    protocol = options.choose("base", list(PROMPTS))
    return Task(
        name="math500",
        problems=lambda: problems(options, protocol),
        grade=grade,
        metrics=("accuracy",),
        protocol=protocol,
        stops=("\nProblem:",) if protocol == "base" else (),
        max_new_tokens=2048,
        extraction="the last box after </think>, else a marked answer, else the last formula or number",
    )


def problems(options: TaskOptions, protocol: str) -> list[Problem]:
    found = []
    for index, row in enumerate(rows_of("math500", "test", options.data_path, HUB)):
        key = str(row.get("unique_id") or f"math500/{index}")
        prompt = PROMPTS[protocol].format(problem=row["problem"].strip())
        columns = {"question": row["problem"], "answer": row["answer"]}
        found.append(Problem("math500", key, prompt, row["solution"], columns))
    return found


def grade(problems: Sequence[Problem], texts: Sequence[str], finished: Sequence[bool] | None = None) -> list[Graded]:
    scores = check_answers(problems, texts, finished)
    return [Graded({"accuracy": score}, extract_answer(text)) for score, text in zip(scores, texts, strict=True)]
