"""What in a test depends on the program's answers: a conservative analysis of the test's text, by names.

Pure functions of a syntax tree. Flow-insensitive: a name that depends on an answer anywhere does so everywhere.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

_NESTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_BRANCHING = (ast.If, ast.While, ast.Try, ast.For, ast.With, ast.AsyncFor, ast.AsyncWith)


def names_in(node: ast.AST) -> set[str]:
    """All names that occur below `node`."""
    return {found.id for found in ast.walk(node) if isinstance(found, ast.Name)}


def stored_in(node: ast.AST) -> set[str]:
    """All names that are assigned below `node`."""
    return {found.id for found in ast.walk(node) if isinstance(found, ast.Name) and isinstance(found.ctx, ast.Store)}


def dependent_names(tree: ast.AST, roots: set[str]) -> set[str]:
    """The names whose values may depend on the functions named in `roots`, these included."""
    found = set(roots)
    flows = list(_flows(tree))
    while True:
        before = len(found)
        for sources, targets in flows:
            if sources & found:
                found |= targets
        if len(found) == before:
            return found


def _flows(tree: ast.AST) -> Iterator[tuple[set[str], set[str]]]:
    """(names read, names that come to depend on them) of every construct that moves values."""
    parameters = {
        node.name: {argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.NamedExpr):
            yield names_in(node), stored_in(node) | _receivers(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield names_in(node), {node.name}
        elif isinstance(node, ast.Call):
            handed = names_in(node)
            yield handed, _changed_by_call(node)
            if isinstance(node.func, ast.Name) and node.func.id in parameters:
                inside = [*node.args, *[word.value for word in node.keywords]]
                yield set().union(*map(names_in, inside)), parameters[node.func.id]
        elif isinstance(node, ast.comprehension):
            yield names_in(node.iter), stored_in(node.target)
        elif isinstance(node, _BRANCHING):
            yield _deciding(node), stored_in(node) | _handler_names(node)


def _receivers(node: ast.AST) -> set[str]:
    """Names of which a part is assigned: `x[i] = ...`, `x.y = ...`."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if hasattr(node, "target") else []
    return set().union(*[names_in(target) for target in targets])


def _changed_by_call(node: ast.Call) -> set[str]:
    """What a call may change: the object of a method, and what is handed over by name."""
    changed = {argument.id for argument in node.args if isinstance(argument, ast.Name)}
    if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        changed.add(node.func.value.id)
    return changed


def _deciding(node: ast.AST) -> set[str]:
    """The names on which it depends what a branching statement does."""
    if isinstance(node, ast.If | ast.While):
        return names_in(node.test)
    if isinstance(node, ast.For | ast.AsyncFor):
        return names_in(node.iter)
    if isinstance(node, ast.With | ast.AsyncWith):
        return set().union(*[names_in(item.context_expr) for item in node.items])
    return set().union(*[names_in(statement) for statement in node.body])  # type: ignore[attr-defined]


def _handler_names(node: ast.AST) -> set[str]:
    return {handler.name for handler in node.handlers if handler.name} if isinstance(node, ast.Try) else set()


def looks_for_changes(tree: ast.AST, roots: set[str]) -> bool:
    """Whether the test compares an argument of a call with something that is not that call's answer.

    Only then is it shown what a program does to its arguments. A test that computes the expected answer from them would
    otherwise let a program choose what is expected.
    """
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and names_in(node.func) & roots]
    handed = {found.id for call in calls for found in map(_handed, call.args) if isinstance(found, ast.Name)}
    handed |= {word.value.id for call in calls for word in call.keywords if isinstance(word.value, ast.Name)}
    answers = roots | {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value and names_in(node.value) & roots
        for name in stored_in(node)
    }
    return any(_is_about(node, handed, answers) for node in ast.walk(tree))


def _is_about(node: ast.AST, handed: set[str], answers: set[str]) -> bool:
    """Whether an expression checks what has become of an argument."""
    if isinstance(node, ast.Compare) and names_in(node) & handed:
        identity = any(isinstance(sign, ast.Is | ast.IsNot) for sign in node.ops)
        return identity or not names_in(node) & answers or _compares_a_part(node, handed, answers)
    is_call = isinstance(node, ast.Assert) and isinstance(node.test, ast.Call)
    return is_call and bool(names_in(node) & handed) and not names_in(node) & answers


def _handed(argument: ast.expr) -> ast.expr:
    return argument.value if isinstance(argument, ast.Starred) else argument


def _compares_a_part(node: ast.Compare, handed: set[str], answers: set[str]) -> bool:
    """`nums[:k] == [1, 2]`, where k is an answer: it only says which part of the argument is compared."""
    sides = [node.left, *node.comparators]
    parts = [side for side in sides if isinstance(side, ast.Subscript) and names_in(side.value) & handed]
    others = [side for side in sides if side not in parts]
    return bool(parts) and not any(names_in(side) & (answers | handed) for side in others)
