"""A trusted test before it is run: compiled, and looked through for what is certain of it.

Pure functions of the test's text. Raises JobError if it is unusable.
"""

from __future__ import annotations

import ast
import functools
import types
from dataclasses import dataclass

from sandboxes.contract import JobError
from sandboxes.proxy import encode_call

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_CONDITIONAL = (ast.BoolOp, ast.IfExp, ast.Lambda, ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom, *_COMPREHENSIONS)


@dataclass(frozen=True)
class CompiledTest:
    """A compiled test: its code, the prelude's code, the lines of its asserts and the names that it assigns."""

    code: types.CodeType
    prelude: types.CodeType | None
    assert_lines: tuple[int, ...]
    assigned: frozenset[str]
    ahead: tuple[bytes, ...]  # frames of the calls the test is certain to make, in order


@functools.lru_cache(maxsize=512)
def compile_test(test: str, prelude: str, entry_point: str) -> CompiledTest:
    """Compile a trusted test. Raises JobError if it does not compile or does not define `check`."""
    try:
        tree = ast.parse(test)
        code = compile(tree, "<test>", "exec", dont_inherit=True)
        prelude_code = compile(prelude, "<prelude>", "exec", dont_inherit=True) if prelude else None
    except (SyntaxError, ValueError) as error:
        raise JobError(f"the test does not compile: {error}") from None
    if not any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body):
        raise JobError("the test does not define check(candidate)")
    lines = sorted(node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert))
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    assigned = frozenset(node.id for node in names if isinstance(node.ctx, ast.Store))
    return CompiledTest(code, prelude_code, tuple(lines), assigned, certain_calls(tree, entry_point))


def certain_calls(tree: ast.Module, entry_point: str) -> tuple[bytes, ...]:
    """Frames of the calls that `check` makes, if these can be read off its text: one literal call per plain statement.

    They can then be sent in one go. Empty if the body branches, loops, assigns or computes arguments, or if the test
    also calls the candidate by its own name.
    """
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    by_name = any(isinstance(node, ast.Name) and node.id == entry_point for node in ast.walk(tree))
    if len(checks) != 1 or not checks[0].args.args or (by_name and checks[0].args.args[0].arg != entry_point):
        return ()
    name, frames = checks[0].args.args[0].arg, []
    for statement in checks[0].body:
        if not isinstance(statement, ast.Assert | ast.Expr | ast.Pass):
            return ()
        mentions = [node for node in ast.walk(statement) if isinstance(node, ast.Name) and node.id == name]
        if not mentions:
            continue
        call = _only_call(statement, mentions)
        if call is None:
            return ()
        frames.append(call)
    return tuple(frames)


def _only_call(statement: ast.stmt, mentions: list[ast.Name]) -> bytes | None:
    """The frame of the statement's one candidate call, or None if it is not certain to be made with literals."""
    inner = list(ast.walk(statement.test if isinstance(statement, ast.Assert) else statement))
    calls = [node for node in inner if isinstance(node, ast.Call) and node.func is mentions[0]]
    conditional = any(
        isinstance(node, _CONDITIONAL) or (isinstance(node, ast.Compare) and len(node.ops) > 1) for node in inner
    )
    if len(mentions) != 1 or len(calls) != 1 or conditional:
        return None
    try:
        args = tuple(ast.literal_eval(node) for node in calls[0].args)
        kwargs = {word.arg: ast.literal_eval(word.value) for word in calls[0].keywords if word.arg is not None}
        return None if len(kwargs) < len(calls[0].keywords) else encode_call(args, kwargs)
    except (ValueError, TypeError, JobError):
        return None
