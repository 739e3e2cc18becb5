"""HumanEval (Chen et al. 2021): 164 functions, judged by their tests in a sandbox; HumanEval+ if a path is given.

Protocols: `base` (the raw prompt is continued and cut at OpenAI's stop strings) and `chat` (the code is taken out of
the answer). No text of a model runs outside the sandbox.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from reward_models.programs import find_code

from ..types import Problem
from .base import Graded, Task, TaskError, TaskOptions, check_answers
from .data import read_rows, rows_of

HUB = "openai/openai_humaneval"
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
CHAT = (
    "Complete the following Python function. Answer with the whole function, imports included, in one Python code "
    "block.\n\n```python\n{prompt}```"
)


def humaneval(options: TaskOptions) -> Task:
    """HumanEval; metric `pass` and, with extra tests, `plus` (HumanEval's tests and the extra ones)."""
    protocol = options.choose("base", ["base", "chat"])
    plus = options.extra_tests_path
    return Task(
        name="humaneval",
        problems=lambda: problems(options, protocol),
        grade=grader(with_plus=plus is not None),
        gold=lambda problem: gold_text(problem, protocol),
        metrics=("pass", "plus") if plus else ("pass",),
        protocol=protocol,
        stops=STOPS if protocol == "base" else (),
        max_new_tokens=512 if protocol == "base" else 1024,
        extraction="the continuation up to a stop string"
        if protocol == "base"
        else "the last Python block that defines the function, after </think>",
    )


def problems(options: TaskOptions, protocol: str) -> list[Problem]:
    """Every row as a problem; its prompt keeps its last newline, without which base models score lower."""
    extra = extra_tests(options.extra_tests_path) if options.extra_tests_path else {}
    found = []
    for row in rows_of("humaneval", "test", options.data_path, HUB):
        columns = {"entry_point": row["entry_point"], "test": row["test"], "code_prompt": row["prompt"]}
        if options.extra_tests_path:
            if row["task_id"] not in extra:
                raise TaskError(f"{options.extra_tests_path} has no tests for {row['task_id']}")
            columns["extra_test"] = extra[row["task_id"]]
        prompt = row["prompt"] if protocol == "base" else CHAT.format(prompt=row["prompt"])
        found.append(Problem("humaneval", row["task_id"], prompt, row["canonical_solution"], columns))
    return found


def extra_tests(path: str) -> dict[str, str]:
    """task_id -> test text of HumanEval+ as the hub has it (evalplus/humanevalplus, column `test`)."""
    rows = read_rows(Path(path).expanduser())
    if not rows or "test" not in rows[0]:
        raise TaskError(f"{path}: expected rows with task_id and test, as in the hub's evalplus/humanevalplus")
    return {row["task_id"]: row["test"] for row in rows}


def gold_text(problem: Problem, protocol: str) -> str:
    if protocol == "base":
        return problem.solution
    return f"```python\n{problem.columns['code_prompt']}{problem.solution}```"


def grader(with_plus: bool) -> Callable[[Sequence[Problem], Sequence[str]], list[Graded]]:
    def grade(problems: Sequence[Problem], texts: Sequence[str]) -> list[Graded]:
        passed = check_answers(problems, texts)
        codes = [find_code(text, p.columns["entry_point"])[0] for p, text in zip(problems, texts, strict=True)]
        if not with_plus:
            return [Graded({"pass": score}, code) for score, code in zip(passed, codes, strict=True)]
        harder = [replace(p, columns=p.columns | {"test": p.columns["extra_test"]}) for p in problems]
        extra = check_answers(harder, texts)
        return [
            Graded({"pass": score, "plus": None if None in (score, more) else min(score, more)}, code)  # type: ignore[type-var]
            for score, more, code in zip(passed, extra, codes, strict=True)
        ]

    return grade
