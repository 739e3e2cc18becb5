"""The demo problem families as tasks: the held-out problems of the demo default, graded as in training."""

from __future__ import annotations

from collections.abc import Sequence

from reward_models.math_answers import extract_answer

from ..tasks.base import Graded, Task, TaskOptions, check_answers
from ..types import Problem
from .problems import make_problems

NUM_PROBLEMS = 1000


def demo(options: TaskOptions, math_share: float = 0.7, name: str = "demo") -> Task:
    """The mix of both families that the demo run is tested on."""
    return Task(
        name=name,
        problems=lambda: make_problems("test", NUM_PROBLEMS, 0, math_share=math_share),
        grade=grade,
        protocol=options.choose("base", ["base"]) if options.protocol else "base",
        max_new_tokens=48,
        extraction="math: marked answer, else the last number; code: the continuation of the function",
    )


def demo_math(options: TaskOptions) -> Task:
    """Word problems only."""
    return demo(options, 1.0, "demo_math")


def demo_code(options: TaskOptions) -> Task:
    """Short functions only."""
    return demo(options, 0.0, "demo_code")


def grade(problems: Sequence[Problem], texts: Sequence[str], finished: Sequence[bool] | None = None) -> list[Graded]:
    return [
        Graded({"accuracy": score}, extract_answer(text) if "answer" in problem.columns else text)
        for problem, text, score in zip(problems, texts, check_answers(problems, texts, finished), strict=True)
    ]
