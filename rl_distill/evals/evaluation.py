"""Solve problems greedily and grade the answers with the very functions that reward training.

An answer that could not be graded (trouble of the sandbox itself) is not counted as wrong: it is left out and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from reward_models import RewardBlend, RewardSpec

from ..config import RunConfig
from ..generation.sampling import Generated, Sampling, added_text, generate
from ..models.tokenizers import num_token_ids
from ..ppo.rollout import columns_of
from ..types import Completion, Problem


@dataclass(frozen=True)
class Evaluation:
    """Per problem, in order: the completion and its grade, 1.0 right, 0.0 wrong, None not graded."""

    problems: list[Problem]
    completions: list[Completion]
    grades: list[float | None]

    def accuracy(self) -> dict[str, float]:
        """By task, and "overall" over all graded problems; NaN where nothing was graded."""
        by_task: dict[str, list[float]] = {}
        for problem, grade in zip(self.problems, self.grades, strict=True):
            if grade is not None:
                by_task.setdefault(problem.task, []).append(grade)
        every = [grade for grades in by_task.values() for grade in grades]
        result = {task: sum(grades) / len(grades) for task, grades in sorted(by_task.items())}
        return result | {"overall": sum(every) / len(every) if every else float("nan")}


def grade(problems: Sequence[Problem], completions: Sequence[Completion]) -> list[float | None]:
    """The verdict of `task_check` on each completion: math by value, code by running the tests in a sandbox."""
    with RewardBlend([RewardSpec("task_check", 1.0)]) as blend:
        scores = blend.score(
            prompts=[problem.prompt for problem in problems],
            completions=[completion.text for completion in completions],
            completion_ids=[completion.token_ids for completion in completions],
            columns=columns_of(problems, completions),
        )
    return scores.total


class Writer(Protocol):
    """What answers problems: a teacher, wherever it lives, or `GreedyModel`."""

    def generate(
        self, prompt_ids: Sequence[Sequence[int]], sampling: Sampling, batch_size: int, *, tasks: Sequence[str] = ()
    ) -> list[Generated]: ...


class GreedyModel:
    """A causal LM in this process as a Writer."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer

    def generate(
        self, prompt_ids: Sequence[Sequence[int]], sampling: Sampling, batch_size: int, *, tasks: Sequence[str] = ()
    ) -> list[Generated]:
        was_training = self.model.training
        self.model.eval()
        generated = generate(
            self.model,
            prompt_ids,
            sampling,
            eos_token_ids=[self.tokenizer.eos_token_id],
            pad_token_id=self.tokenizer.pad_token_id,
            batch_size=batch_size,
            vocab_size=num_token_ids(self.tokenizer),
        )
        self.model.train(was_training)
        return generated


def evaluate(model: Any, tokenizer: Any, problems: Sequence[Problem], config: RunConfig) -> Evaluation:
    """`evaluate_writer` with `model`, a causal LM in this process."""
    return evaluate_writer(GreedyModel(model, tokenizer), tokenizer, problems, config)


def evaluate_writer(writer: Writer, tokenizer: Any, problems: Sequence[Problem], config: RunConfig) -> Evaluation:
    """Greedy answers of `writer` to every problem, graded."""
    prompt_ids = [tokenizer(problem.prompt, add_special_tokens=False)["input_ids"] for problem in problems]
    greedy = Sampling(config.generation.max_completion_length, temperature=0.0)
    tasks = [problem.task for problem in problems]
    generated = writer.generate(prompt_ids, greedy, config.evaluation.batch_size, tasks=tasks)
    if not problems:  # a process without a share took part in the writing, which may need all of them
        return Evaluation([], [], [])
    texts = [added_text(tokenizer, ids, item.token_ids) for ids, item in zip(prompt_ids, generated, strict=True)]
    stops = config.generation.stop
    completions = [
        Completion(up_to_stop(text, stops), item.token_ids, item.finish)
        for text, item in zip(texts, generated, strict=True)
    ]
    return Evaluation(list(problems), completions, grade(problems, completions))


def up_to_stop(text: str, stops: Sequence[str]) -> str:
    """The text through the first of the stop strings, where rollouts end too."""
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    return text[: min(ends)] if ends else text


def gap_recovered(
    teacher: dict[str, float], before: dict[str, float], after: dict[str, float]
) -> dict[str, float | None]:
    """(after - before) / (teacher - before) by task and overall; above 1 the student passed its teacher.

    None where the student was at least as good as the teacher from the start: there was no gap.
    """
    return {
        name: (after[name] - before[name]) / (teacher[name] - before[name]) if teacher[name] > before[name] else None
        for name in teacher
    }
