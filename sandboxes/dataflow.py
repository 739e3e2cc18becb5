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
    functions = functions_in(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.NamedExpr):
            yield names_in(node), stored_in(node) | _receivers(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield names_in(node), {node.name}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
            for argument, parameter in bound_arguments(node, functions[node.func.id]):
                yield names_in(argument), {parameter}
                if isinstance(argument, ast.Name):
                    yield {parameter}, {argument.id}
        elif isinstance(node, ast.Call):
            yield names_in(node), _changed_by_call(node)
        elif isinstance(node, ast.comprehension):
            yield names_in(node.iter), stored_in(node.target)
        elif isinstance(node, _BRANCHING):
            yield _deciding(node), stored_in(node) | _handler_names(node)


def functions_in(tree: ast.AST) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions that a test defines, by name."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {node.name: node for node in nodes}


def bound_arguments(call: ast.Call, function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[ast.expr, str]]:
    """(argument, parameter) of a call of a function of the test; all parameters where it cannot be told which."""
    parameters = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    every = [*parameters, *[argument.arg for argument in function.args.kwonlyargs]]
    every += [extra.arg for extra in (function.args.vararg, function.args.kwarg) if extra is not None]
    certain = not any(isinstance(argument, ast.Starred) for argument in call.args)
    for place, argument in enumerate(call.args):
        names = parameters[place : place + 1] if certain and place < len(parameters) else every
        yield from ((argument, name) for name in names)
    for word in call.keywords:
        yield from ((word.value, name) for name in ([word.arg] if word.arg in every and word.arg else every))


def recursive_functions(tree: ast.AST) -> set[str]:
    """The functions of a test that may call themselves, be it by way of others."""
    functions = functions_in(tree)
    reached = {name: names_in(node) & functions.keys() for name, node in functions.items()}
    for _ in functions:
        reached = {name: found.union(*[reached[other] for other in found]) for name, found in reached.items()}
    return {name for name, found in reached.items() if name in found}


_LENGTHENING = ("extend", "update", "insert")
_AS_LONG = ("enumerate", "list", "tuple", "sorted", "reversed", "iter", "set", "len")


class Sizes:
    """How often a loop of the test goes round: whether a program decides it by what it answers."""

    def __init__(self, tree: ast.AST, dependent: set[str]):
        self.dependent, self.names = dependent, set[str]()  # names whose length the program decides
        functions = functions_in(tree)
        while True:
            before = len(self.names)
            for node in ast.walk(tree):
                for value, targets in _bindings(node, functions):
                    if self.decided_by_program(value):
                        self.names |= targets & dependent
            if len(self.names) == before:
                return

    def decided_by_program(self, node: ast.expr) -> bool:
        """Whether the number of items of an expression depends on the answers."""
        if isinstance(node, ast.Name):
            return node.id in self.names
        if isinstance(node, ast.List | ast.Tuple | ast.Constant):
            return any(isinstance(item, ast.Starred) and names_in(item) & self.dependent for item in _items(node))
        if isinstance(node, ast.ListComp | ast.GeneratorExp):
            return any(
                self.decided_by_program(part.iter) or any(names_in(test) & self.dependent for test in part.ifs)
                for part in node.generators
            )
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "zip":
                return all(map(self.decided_by_program, node.args))
            if node.func.id in _AS_LONG and len(node.args) >= 1:
                return self.decided_by_program(node.args[0])
            if node.func.id == "range":
                return any(map(self.decided_by_program, node.args))
        return bool(names_in(node) & self.dependent)


def _items(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.List | ast.Tuple) else []


def _bindings(
    node: ast.AST, functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef]
) -> Iterator[tuple[ast.expr, set[str]]]:
    """(value, names bound to it or lengthened by it)."""
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.NamedExpr) and node.value is not None:
        yield node.value, stored_in(node)
    elif isinstance(node, ast.For | ast.comprehension):
        yield node.iter, stored_in(node.target)  # an item of an answer is an answer
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
        for argument, parameter in bound_arguments(node, functions[node.func.id]):
            yield argument, {parameter}
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LENGTHENING:
        for argument in node.args if isinstance(node.func.value, ast.Name) else ():
            yield argument, names_in(node.func.value)


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
    values = [argument for call in calls for argument in (*call.args, *[word.value for word in call.keywords])]
    handed = set().union(*[_handed(value) for value in values])
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


def _handed(argument: ast.expr) -> set[str]:
    """The variable that is handed over, or of which a part is. What a call makes is new, and seen by nobody else."""
    while isinstance(argument, ast.Starred | ast.Subscript | ast.Attribute):
        argument = argument.value
    return {argument.id} if isinstance(argument, ast.Name) else set()


def _compares_a_part(node: ast.Compare, handed: set[str], answers: set[str]) -> bool:
    """`nums[:k] == [1, 2]`, where k is an answer: it only says which part of the argument is compared."""
    sides = [node.left, *node.comparators]
    parts = [side for side in sides if isinstance(side, ast.Subscript) and names_in(side.value) & handed]
    others = [side for side in sides if side not in parts]
    return bool(parts) and not any(names_in(side) & (answers | handed) for side in others)
