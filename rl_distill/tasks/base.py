"""What a task is, and how one is found by name: `gsm8k`, `./my_task.py:make`, `pkg.module:make`.

It may assume standard library and reward_models only; data is read when `problems()` is called.
It will not generate: a task gives problems, the prompt shown for each, and the grade of a text.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reward_models import reasoning
from reward_models.base import numbers_or_none
from reward_models.registry import USER_CODE_ERRORS, accepted_arguments, nearest, resolve

from ..errors import UserError
from ..types import Problem

Score = float | None


class TaskError(UserError, ValueError):
    """A task cannot be used as it stands; the message is one line that says what to do."""


@dataclass(frozen=True)
class Graded:
    """One graded text: a score in 0..1 per metric, None where it could not be graded, and the answer found in it."""

    scores: Mapping[str, Score]
    extracted: str | None = None


@dataclass(frozen=True)
class TaskOptions:
    """`protocol` None lets the task choose: `chat` where the tokenizer has a chat template, else its base protocol."""

    data_path: str | None = None
    protocol: str | None = None
    has_chat_template: bool = False
    extra_tests_path: str | None = None

    def choose(self, base: str, known: Sequence[str]) -> str:
        """The protocol to use; TaskError where the task does not know it."""
        protocol = self.protocol or ("chat" if self.has_chat_template else base)
        if protocol not in known:
            raise TaskError(f"protocol {protocol!r} is unknown here; {nearest_or_list(protocol, known)}")
        if protocol == "chat" and not self.has_chat_template:
            raise TaskError(f"protocol chat needs a tokenizer with a chat template; use --protocol {base}")
        return protocol


@dataclass(frozen=True)
class Task:
    """Problems, the prompt for each, and the grader; `metrics[0]` is the headline.

    A prompt under the protocol `chat` is the user's turn; every other prompt is continued as it stands.
    `stops` end a completion (they are not part of it). With `choices` each record also has their log-probabilities as
    an answer. `corpus` adds metrics that are no mean of per-problem scores: from the problems and their records.
    A grader with an argument `finished` is told of each text whether it ended by itself (False: cut by length).
    """

    name: str
    problems: Callable[[], list[Problem]]
    grade: Callable[..., list[Graded]]  # of problems and one text for each
    prompt: Callable[[Problem], str] = field(default=lambda problem: problem.prompt)
    gold: Callable[[Problem], str] = field(default=lambda problem: problem.solution)
    metrics: tuple[str, ...] = ("accuracy",)
    protocol: str = "base"
    stops: tuple[str, ...] = ()
    max_new_tokens: int = 512
    extraction: str = ""
    choices: tuple[str, ...] = ()
    corpus: Callable[[Sequence[Problem], Sequence[Mapping[str, Any]]], dict[str, float]] | None = None

    def graded(
        self, problems: Sequence[Problem], texts: Sequence[str], finished: Sequence[bool] | None = None
    ) -> list[Graded]:
        """The result of `grade`, which receives `finished` if it has such an argument."""
        takes, takes_all = accepted_arguments(self.grade)
        return self.grade(problems, texts, **({"finished": finished} if takes_all or "finished" in takes else {}))


# short name -> module and the function in it that builds the task from TaskOptions
SHORT_NAMES: dict[str, tuple[str, str]] = {
    "gsm8k": ("rl_distill.tasks.gsm8k", "gsm8k"),
    "gsm8k_robust": ("rl_distill.tasks.robustness.task", "gsm8k_robust"),
    "humaneval": ("rl_distill.tasks.humaneval", "humaneval"),
    "mbpp": ("rl_distill.tasks.mbpp", "mbpp"),
    "mbpp_plus": ("rl_distill.tasks.mbpp", "mbpp_plus"),
    "apps": ("rl_distill.tasks.competitions", "apps"),
    "codeforces": ("rl_distill.tasks.competitions", "codeforces"),
    "livecodebench": ("rl_distill.tasks.competitions", "livecodebench"),
    "leetcode": ("rl_distill.tasks.competitions", "leetcode"),
    "math500": ("rl_distill.tasks.math500", "math500"),
    "mgsm": ("rl_distill.tasks.weak_spots.languages", "mgsm"),
    "needle_1k": ("rl_distill.tasks.weak_spots.long_context", "needle_1k"),
    "needle_4k": ("rl_distill.tasks.weak_spots.long_context", "needle_4k"),
    "needle_8k": ("rl_distill.tasks.weak_spots.long_context", "needle_8k"),
    "triviaqa": ("rl_distill.tasks.triviaqa", "triviaqa"),
    "demo": ("rl_distill.demo.tasks", "demo"),
    "demo_math": ("rl_distill.demo.tasks", "demo_math"),
    "demo_code": ("rl_distill.demo.tasks", "demo_code"),
    "free_text": ("rl_distill.tasks.columns", "free_text"),
    "classification": ("rl_distill.tasks.columns", "classification"),
}


def load_task(name: str, options: TaskOptions) -> Task:
    """The task that a short name, `./file.py:name` or `pkg.module:name` stands for; TaskError says what there is.

    The named object is a Task, or a function that builds one; it takes `options` if it has such an argument.
    """
    check_name(name)
    if ":" in name:
        try:
            found = resolve(name)
        except ValueError as error:
            raise TaskError(f"task {name}: {str(error).replace('reward ', '')}") from error
    else:
        module, attribute = SHORT_NAMES[name]
        found = getattr(importlib.import_module(module), attribute)
    return _built(name, found, options)


def check_name(name: str) -> None:
    """TaskError where nothing can be called so: no short name, or a file that is not there. Imports nothing."""
    if ":" not in name and name not in SHORT_NAMES:
        raise TaskError(
            f"no task is called {name!r}; {nearest_or_list(name, SHORT_NAMES)}; your own is ./file.py:function"
        )
    place = Path(name.rpartition(":")[0])
    if place.suffix == ".py" and not place.is_file():
        raise TaskError(f"task {name}: there is no file {place} (looked for {place.absolute()})")


def _built(name: str, factory: Any, options: TaskOptions) -> Task:
    takes, takes_all = accepted_arguments(factory)
    with _told(name):
        task = factory(**({"options": options} if takes_all or "options" in takes else {}))
    if not isinstance(task, Task):
        raise TaskError(f"{name} must return a rl_distill.tasks.base.Task, not {type(task).__name__}")

    def problems() -> list[Problem]:
        with _told(name):
            return task.problems()

    return replace(task, problems=problems)


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """What a task's code raises, over rows of the user's or by itself, becomes a TaskError of one line."""
    try:
        yield
    except UserError:
        raise
    except KeyError as error:
        raise TaskError(f"task {name}: a row of its data has no column {error}; rename or add it") from error
    except USER_CODE_ERRORS as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        hint = "its data has other kinds of rows than it reads" if name in SHORT_NAMES else "mend the task or its data"
        raise TaskError(f"task {name}: its problems cannot be made ({reason}): {hint}") from error


def nearest_or_list(word: str, known: Sequence[str] | dict[str, Any]) -> str:
    hint = nearest(word, known).lstrip("; ")
    return hint or f"there are: {', '.join(known)}"


def validate(task: Task, problems: Sequence[Problem]) -> int:
    """The number of gold answers, every one of which graded 1.0 on every metric; some sets have none, or not for all.

    TaskError names the first that did not: then the data, the grader or the sandbox is at fault and no model's number
    would mean anything.
    """
    if not problems:
        raise TaskError(f"task {task.name} has no problems")
    golds = [(problem, gold) for problem in problems if (gold := task.gold(problem))]
    known = [problem for problem, _ in golds]
    graded = task.grade(known, [gold for _, gold in golds]) if golds else []
    bad = [
        (problem, verdict)
        for problem, verdict in zip(known, graded, strict=True)
        if any(verdict.scores.get(metric) != 1.0 for metric in task.metrics)
    ]
    if bad:
        problem, verdict = bad[0]
        raise TaskError(
            f"task {task.name}: {len(bad)} of {len(known)} gold answers do not grade as correct; first "
            f"{problem.key!r}: {verdict.scores}, extracted {verdict.extracted!r}"
        )
    return len(known)


def final_text(text: str) -> str:
    """What is said after the reasoning, empty where that never ends."""
    return reasoning.after_reasoning(text) or ""


@functools.cache
def checker() -> Callable[..., list[Score]]:
    """The very function that rewards training: math by value, code by running its tests in a sandbox."""
    return resolve("task_check")


def check_answers(
    problems: Sequence[Problem], texts: Sequence[str], finished: Sequence[bool] | None = None, **settings: Any
) -> list[Score]:
    """The verdicts of training's `task_check` on one text per problem, None where there is none for any reason.

    As in training, a math answer that was cut by length (finished: False) is not credited.
    """
    names = sorted({name for problem in problems for name in problem.columns})
    columns = {name: [problem.columns.get(name) for problem in problems] for name in names}
    columns["finished"] = [True] * len(texts) if finished is None else list(finished)
    prompts = [problem.prompt for problem in problems]
    return numbers_or_none(checker()(prompts=prompts, completions=list(texts), **columns, **settings))
