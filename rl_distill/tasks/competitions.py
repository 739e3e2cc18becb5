"""Programming competitions: APPS, Codeforces and LiveCodeBench (input and output, many cases), LeetCode (a class).

Protocols: `chat`, and `base`, which opens a code block for the model to fill. LiveCodeBench has no reference solutions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..types import Problem
from .base import Task, TaskError, TaskOptions
from .data import Row, rows_of
from .programs import EXTRACTION, code_columns, fenced, first_solution, grade

READ = "Write a Python program that reads from standard input and writes to standard output."
FILL = "Complete this Python code; answer with the whole class.\n\n```python\n{starter}\n```"
CHAT = "{question}\n\n{wanted} Answer with the whole program in one Python code block."
BASE = "{question}\n\n{wanted}\n\n```python\n"


@dataclass(frozen=True)
class Source:
    """Where a set comes from and which of its columns hold the key, the statement and reference solutions."""

    hub: str
    config: str | None
    key: str
    question: Callable[[Row], str]
    solutions: str | None


def _codeforces_statement(row: Row) -> str:
    parts = {"": row.get("description"), "Input": row.get("input_format"), "Output": row.get("output_format")}
    shown = [f"{name}\n{text}".strip() for name, text in parts.items() if text]
    shown += [
        f"Example\n{case['input'].rstrip()}\nOutput\n{case['output'].rstrip()}" for case in row.get("examples") or []
    ]
    return "\n\n".join([row.get("title") or "", *shown]).strip()


SOURCES = {
    "apps": Source("codeparrot/apps", "all", "problem_id", lambda row: row["question"], "solutions"),
    "codeforces": Source("open-r1/codeforces", None, "id", _codeforces_statement, "solution"),
    "livecodebench": Source(
        "livecodebench/code_generation_lite", None, "question_id", lambda row: row["question_content"], None
    ),
    "leetcode": Source(
        "newfacade/LeetCodeDataset", None, "task_id", lambda row: row["problem_description"], "completion"
    ),
}


def _task(name: str, options: TaskOptions) -> Task:
    protocol = options.choose("base", ["base", "chat"])
    return Task(
        name=name,
        problems=lambda: problems(name, options, protocol),
        grade=grade,
        gold=lambda problem: fenced(problem.solution),
        metrics=("pass",),
        protocol=protocol,
        stops=("\n```",) if protocol == "base" else (),
        max_new_tokens=2048,
        extraction=EXTRACTION,
    )


def apps(options: TaskOptions) -> Task:
    """APPS, programs from introductory to competition level, checked on input and output."""
    return _task("apps", options)


def codeforces(options: TaskOptions) -> Task:
    """Codeforces, contest programs checked on input and output."""
    return _task("codeforces", options)


def livecodebench(options: TaskOptions) -> Task:
    """LiveCodeBench, contest problems checked on input and output or by calls."""
    return _task("livecodebench", options)


def leetcode(options: TaskOptions) -> Task:
    """LeetCode, a method of `Solution` checked by calls."""
    return _task("leetcode", options)


def problems(name: str, options: TaskOptions, protocol: str) -> list[Problem]:
    source = SOURCES[name]
    found = []
    for row in rows_of(name, "test", options.data_path, source.hub, source.config):
        if row.get("generated_checker") or row.get("input_mode") == "file":
            continue  # several answers are right, or it reads files: no comparison of output can judge it
        if source.key not in row:
            raise TaskError(f"{name}: a row lacks {source.key}; it has {', '.join(row)}")
        key = f"{name}/{row[source.key]}"
        starter = row.get("starter_code") or ""
        wanted = FILL.format(starter=starter.rstrip()) if starter else READ
        prompt = (CHAT if protocol == "chat" else BASE).format(question=source.question(row).strip(), wanted=wanted)
        solution = first_solution(row.get(source.solutions)) if source.solutions else ""
        found.append(Problem(name, key, prompt, solution, code_columns(name, key, row)))
    return found
