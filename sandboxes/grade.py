"""Short ways to judge one program, with one sandbox for the whole process; many programs go to `Sandbox.run_batch`.

Nothing here runs a program's text.
"""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Sequence

from sandboxes.contract import Job, JobError, Verdict
from sandboxes.pool import Sandbox


@functools.cache
def shared_sandbox() -> Sandbox:
    """The one sandbox of this process, started when the first program comes.

    A worker waits on the kernel for most of its few milliseconds, so there are more slots than CPUs: on 2 busy CPUs, 6
    slots finished programs 2.5 times as fast as 2.
    """
    num_cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Sandbox(num_slots=min(16, 4 * num_cpus))


def grade(source: str, entry_point: str, test: str, prelude: str = "") -> Verdict:
    """The verdict on a program whose `entry_point` (function, class or method) is tested. Raises SandboxError."""
    return shared_sandbox().run(Job(source, entry_point, test, prelude=prelude))


def grade_io(
    source: str,
    cases: Sequence[tuple[str, str]],
    comparison: str = "tokens",
    float_tolerance: float | None = None,
) -> Verdict:
    """The verdict on a program that reads stdin and writes stdout; `cases` are (input, expected output).

    `comparison` is "tokens", "lines" or "exact" (see comparison.py). Raises SandboxError.
    """
    return shared_sandbox().run(Job(source, cases=cases, comparison=comparison, float_tolerance=float_tolerance))


def assert_list(asserts: Sequence[str], setup: str = "") -> tuple[str, str]:
    """(test text, entry point) of a list of asserts that call a function by its name, as MBPP has them.

    The entry point is the function that every assert calls. Raises JobError if there is none.
    """
    test = "\n".join(filter(None, [setup.strip("\n"), *asserts])) + "\n"
    try:
        called = [_called_names(ast.parse(text)) for text in asserts]
    except SyntaxError as error:
        raise JobError(f"an assert does not compile: {error}") from None
    known = _BUILTINS | _defined_names(setup)
    common = [name for name in called[0] if all(name in names for names in called)] if called else []
    own = [name for name in common if name not in known]
    if not own:
        raise JobError("no function is called by all of the asserts")
    return test, own[0]


_BUILTINS = frozenset(dir(__import__("builtins")))


def _called_names(tree: ast.AST) -> list[str]:
    """Names of the functions that are called, in the order of the text."""
    functions = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = [function for function in functions if isinstance(function, ast.Name)]
    return [name.id for name in sorted(names, key=lambda name: (name.lineno, name.col_offset))]


def _defined_names(setup: str) -> set[str]:
    """What the setup imports or defines."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(setup)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return names
