"""A trusted test before it is run: instrumented, compiled, and looked through for what is certain of it.

Pure functions of the test's text. Raises JobError if it is unusable.
"""

from __future__ import annotations

import ast
import builtins
import functools
import types
from collections.abc import Iterator
from dataclasses import dataclass

from sandboxes import dataflow, instrument
from sandboxes.contract import JobError
from sandboxes.proxy import encode_call, is_class_under_test

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_CONDITIONAL = (ast.BoolOp, ast.IfExp, ast.Lambda, ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom, *_COMPREHENSIONS)
_ASKING_MORE = (ast.Attribute, ast.Subscript, ast.Starred)  # of an answer that is an object
_PLAIN_FUNCTIONS = ("abs", "round", "fabs", "isclose")


@dataclass(frozen=True)
class CompiledTest:
    """A compiled test, and what its text says about it."""

    code: types.CodeType
    prelude: types.CodeType | None
    has_check: bool  # or else the module itself is the test
    tests: tuple[int, ...]  # the numbers of the assertions in its body
    assigned: frozenset[str]  # all names that it assigns
    imported: frozenset[str]  # the packages that it imports
    own_text: frozenset[str]  # its literals
    own_code: frozenset[types.CodeType]
    ahead: tuple[bytes, ...]  # frames of the calls the test is certain to make, in order
    class_under_test: bool
    watches_arguments: bool
    program_classes: tuple[str, ...]  # of a list of asserts that builds its inputs from classes of the program


@functools.lru_cache(maxsize=512)
def compile_test(test: str, prelude: str, entry_point: str) -> CompiledTest:
    """Compile a trusted test. Raises JobError if it does not compile or does not call the program."""
    name = entry_point.rpartition(".")[2]
    try:
        tree, before = ast.parse(test), ast.parse(prelude)
        prelude_code = compile(before, "<prelude>", "exec", dont_inherit=True) if prelude else None
    except (SyntaxError, ValueError, RecursionError) as error:
        raise JobError(f"the test does not compile: {error}") from None
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    if not checks and name not in dataflow.names_in(tree):
        raise JobError(f"the test does not define check(candidate), nor does it call {name}")
    roots = {name, *[check.args.args[0].arg for check in checks if check.args.args]}
    classes = {node.name for node in before.body if isinstance(node, ast.ClassDef)}
    ahead = () if not checks and _program_classes(tree, before, name) else certain_calls(tree, name)
    watches = dataflow.looks_for_changes(tree, roots)
    assigned, imported = frozenset(dataflow.stored_in(tree)), frozenset(_imported(tree))
    tests = instrument.instrument(tree, roots)
    code = compile(tree, "<test>", "exec", dont_inherit=True)
    literals = frozenset(_literals(tree)) | frozenset(_literals(before))
    own_code = frozenset({code} | ({prelude_code} if prelude_code is not None else set()))
    about_class = is_class_under_test(name, classes) and "." not in entry_point
    return CompiledTest(
        code, prelude_code, bool(checks), tests, assigned, imported, literals, own_code, ahead, about_class, watches,
        () if checks else _program_classes(tree, before, name),
    )  # fmt: skip


def _program_classes(tree: ast.Module, prelude: ast.Module, entry_point: str) -> tuple[str, ...]:
    """Names written like classes that a list of asserts uses and nobody but the program can define."""
    known = {entry_point, instrument.RECORDER, *vars(builtins)}
    for node in (*ast.walk(tree), *ast.walk(prelude)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            known.add(node.name)
        elif isinstance(node, ast.alias):
            known.add((node.asname or node.name).partition(".")[0])
    used = dataflow.names_in(tree) - dataflow.stored_in(tree) - dataflow.stored_in(prelude) - known
    return tuple(sorted(name for name in used if is_class_under_test(name, ())))


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def _literals(tree: ast.Module) -> Iterator[str]:
    return (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))


def certain_calls(tree: ast.Module, entry_point: str) -> tuple[bytes, ...]:
    """Frames of the calls that the test makes, if these can be read off its text: one literal call per plain statement.

    They can then be sent in one go. Empty if the body branches, loops, assigns or computes arguments, asks more of an
    answer than its value, or calls the candidate by another name as well.
    """
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    if len(checks) > 1 or (checks and not checks[0].args.args):
        return ()
    name = checks[0].args.args[0].arg if checks else entry_point
    if name != entry_point and entry_point in dataflow.names_in(tree):
        return ()
    frames = []
    for statement in checks[0].body if checks else tree.body:
        if not isinstance(statement, ast.Assert | ast.Expr | ast.Pass | ast.Import | ast.ImportFrom):
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
    if len(mentions) != 1 or len(calls) != 1 or any(map(_is_uncertain, inner)):
        return None
    others = [node for node in inner if isinstance(node, ast.Call) and node is not calls[0]]
    if any(getattr(node.func, "id", getattr(node.func, "attr", "")) not in _PLAIN_FUNCTIONS for node in others):
        return None
    if any(isinstance(node, _ASKING_MORE) for node in inner if not any(node is other.func for other in others)):
        return None
    try:
        args = tuple(ast.literal_eval(node) for node in calls[0].args)
        kwargs = {word.arg: ast.literal_eval(word.value) for word in calls[0].keywords if word.arg is not None}
        return None if len(kwargs) < len(calls[0].keywords) else encode_call(args, kwargs)
    except (ValueError, TypeError, JobError):
        return None


def _is_uncertain(node: ast.AST) -> bool:
    return isinstance(node, _CONDITIONAL) or (isinstance(node, ast.Compare) and len(node.ops) > 1)
