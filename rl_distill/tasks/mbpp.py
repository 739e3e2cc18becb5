"""MBPP (Austin et al. 2021), 500 short problems judged by assert lists; MBPP+ (EvalPlus) with larger sets of inputs.

Protocols: `base` (the task and one assert in a docstring, as EvalPlus does it), `3-shot` (the paper's, with problems of
the split `prompt`), `chat`.
"""

from __future__ import annotations

from ..types import Problem
from .base import Task, TaskOptions
from .data import Row, rows_of
from .programs import EXTRACTION, code_columns, fenced, grade

HUBS = {"mbpp": ("google-research-datasets/mbpp", "full"), "mbpp_plus": ("evalplus/mbppplus", None)}
STOPS = {
    "base": ('\n"""', "\nassert", "\nprint(", "\nif __name__", "\n```", "\n#"),
    "3-shot": ("[DONE]",),
    "chat": (),
}
CHAT = (
    "{text}\n\nYour code should pass these tests:\n\n{tests}\n\nAnswer with the whole program, imports included, in "
    "one Python code block."
)
SHOT = (
    "You are an expert Python programmer, and here is your task: {text} Your code should pass these tests:\n\n{tests}\n"
    "[BEGIN]\n"
)


def mbpp(options: TaskOptions) -> Task:
    """MBPP's test split."""
    return _task("mbpp", options, ["base", "3-shot", "chat"])


def mbpp_plus(options: TaskOptions) -> Task:
    """MBPP+: passes only what is right on all of EvalPlus's inputs."""
    return _task("mbpp_plus", options, ["base", "chat"])


def _task(name: str, options: TaskOptions, protocols: list[str]) -> Task:
    protocol = options.choose("base", protocols)
    return Task(
        name=name,
        problems=lambda: problems(name, options, protocol),
        grade=grade,
        gold=lambda problem: gold_text(problem, protocol),
        metrics=("pass",),
        protocol=protocol,
        stops=STOPS[protocol],
        max_new_tokens=1024 if protocol == "chat" else 512,
        extraction=EXTRACTION,
    )


def problems(name: str, options: TaskOptions, protocol: str) -> list[Problem]:
    hub, config = HUBS[name]
    shots = ""
    if protocol == "3-shot":
        exemplars = rows_of(name, "prompt", options.data_path, hub, config)[1:4]  # task_id 2 to 4, as in the paper
        shots = "".join(f"{show(row, protocol)}{row['code'].strip()}\n[DONE]\n\n" for row in exemplars)
    found = []
    for row in rows_of(name, "test", options.data_path, hub, config):
        key = f"{name}/{row['task_id']}"
        prompt = shots + show(row, protocol)
        found.append(Problem(name, key, prompt, row.get("code") or "", code_columns(name, key, row)))
    return found


def show(row: Row, protocol: str) -> str:
    """The task in words and its tests, as the protocol shows them."""
    text, tests = row.get("text") or row["prompt"], list(row["test_list"])
    if protocol == "base":
        return f'"""\n{text}\n{tests[0]}\n"""\n'
    return (CHAT if protocol == "chat" else SHOT).format(text=text.strip(), tests="\n".join(tests))


def gold_text(problem: Problem, protocol: str) -> str:
    return fenced(problem.solution) if protocol == "chat" else problem.solution
