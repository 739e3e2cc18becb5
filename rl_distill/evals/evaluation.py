"""Solve problems greedily and grade the answers with the very functions that reward training.

An answer that could not be graded (trouble of the sandbox itself) is not counted as wrong: it is left out and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from reward_models import VERIFYING_REWARDS, RewardBlend, RewardSpec

from ..config import RunConfig
from ..data.reward_inputs import reward_inputs
from ..generation.sampling import Generated, Sampling, StopStrings, added_text, generate
from ..models.tokenizers import num_token_ids, prompt_ids
from ..ppo.rollout import successes
from ..types import Completion, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GRADED_AT_ONCE = 128
"""Completions per call of the grader: its time limit is for one call, and one that fails takes no other with it."""


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

    @property
    def num_ungraded(self) -> int:
        """How many completions have no grade."""
        return sum(grade is None for grade in self.grades)


def grade(problems: Sequence[Problem], completions: Sequence[Completion]) -> list[float | None]:
    """The verdict of `task_check` on each completion: math by value, code by running the tests in a sandbox.

    None where there is nothing to check by, and where the check failed or took too long: that is never an error here.
    """
    return verdicts(problems, completions, [RewardSpec("task_check", 1.0)])


def verdicts(
    problems: Sequence[Problem], completions: Sequence[Completion], specs: Sequence[RewardSpec]
) -> list[float | None]:
    """The verdict of the verifying rewards among `specs` on each completion, a batch at a time; None for none."""
    verifying = [replace(spec, on_error="skip") for spec in specs if spec.label in VERIFYING_REWARDS]
    if not verifying:
        return [None] * len(problems)
    found: list[float | None] = []
    with RewardBlend(verifying) as blend:
        for start in range(0, len(problems), GRADED_AT_ONCE):
            batch = slice(start, start + GRADED_AT_ONCE)
            found += successes(blend.score(**reward_inputs(problems[batch], completions[batch])))
    return found


class Writer(Protocol):
    """Anything that answers problems: a teacher in any placement, or `GreedyModel`."""

    def generate(
        self, prompt_ids: Sequence[Sequence[int]], sampling: Sampling, batch_size: int, *, tasks: Sequence[str] = ()
    ) -> list[Generated]: ...


class GreedyModel:
    """A causal LM in this process as a Writer; its answers end at any of the texts `stop` as well."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = ()) -> None:
        self.model, self.tokenizer, self.stop = model, tokenizer, StopStrings.of(tokenizer, stop)

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
            stop=self.stop,
        )
        self.model.train(was_training)
        return generated


def evaluate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem], config: RunConfig
) -> Evaluation:
    """`evaluate_writer` with `model`, a causal LM in this process."""
    return evaluate_writer(GreedyModel(model, tokenizer, config.generation.stop), tokenizer, problems, config)


def evaluate_writer(
    writer: Writer, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem], config: RunConfig
) -> Evaluation:
    """Greedy answers of `writer` to every problem, graded. They end where rollouts end."""
    greedy = Sampling(config.generation.max_completion_length, temperature=0.0)
    completions = write(writer, tokenizer, problems, greedy, config)
    if not problems:  # a process without a share took part in the writing, which may need all of them
        return Evaluation([], [], [])
    return Evaluation(list(problems), completions, grade(problems, completions))


def write(
    writer: Writer,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    sampling: Sampling,
    config: RunConfig,
) -> list[Completion]:
    """One completion of `writer` per problem, in order, cut at the config's stop strings as rollouts are."""
    ids = prompt_ids(tokenizer, [problem.prompt for problem in problems])
    tasks = [problem.task for problem in problems]
    generated = writer.generate(ids, sampling, config.evaluation.batch_size, tasks=tasks)
    stop = StopStrings.of(tokenizer, config.generation.stop)
    if stop is not None:
        generated = [stop.ended(item) for item in generated]
    texts = [added_text(tokenizer, row, item.token_ids) for row, item in zip(ids, generated, strict=True)]
    return [Completion(text, item.token_ids, item.finish) for text, item in zip(texts, generated, strict=True)]


def gap_recovered(
    teacher: dict[str, float], before: dict[str, float], after: dict[str, float]
) -> dict[str, float | None]:
    """(after - before) / (teacher - before) by task and overall; above 1 the student passed its teacher.

    None where the student was at least as good as the teacher from the start: there was no gap. Tasks are those with a
    grade each time.
    """
    return {
        name: (after[name] - before[name]) / (teacher[name] - before[name]) if teacher[name] > before[name] else None
        for name in teacher
        if name in before and name in after
    }
