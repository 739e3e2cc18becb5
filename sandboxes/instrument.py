"""Turns a trusted test into one that reports on each of its assertions: each one is a test with its own verdict.

An assertion that fails does not keep the next from being made; a loop goes on with its next iteration. What cannot be
told apart (a try statement, an `if` that raises) counts as one. Pure functions of a syntax tree.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass

from sandboxes import dataflow

RECORDER = "__recorder__"  # what the instrumented test calls: see recorder.py
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_ASSERTING = ("assert", "check", "expect", "verify")


@dataclass
class _State:
    """What is known of the test that is being changed."""

    dependent: set[str]
    sizes: dataflow.Sizes
    checking: set[str]  # functions of the test with assertions in them, or in what they call
    num_tests: int = 0


def instrument(tree: ast.Module, roots: set[str]) -> tuple[int, ...]:
    """Change `tree` in place; the numbers of the tests in `check`, or in the module if it has no `check`.

    `roots`: the names under which the program is called.
    """
    dependent = dataflow.dependent_names(tree, roots)
    functions = dataflow.functions_in(tree)
    helpers = set(functions) - dataflow.recursive_functions(tree) - {"check"}
    state = _State(dependent, dataflow.Sizes(tree, dependent), _checking(functions))
    for name in helpers:
        functions[name].body, _ = _block(functions[name].body, state)
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    tree.body, numbers = _block(tree.body, state)
    for node in checks:
        node.body, numbers = _block(node.body, state)
    ast.fix_missing_locations(tree)
    return tuple(numbers)


def _checking(functions: Mapping[str, ast.AST]) -> set[str]:
    """The functions with assertions in them, or in what they call."""
    found = {name for name, node in functions.items() if _asserts(node) or _raises(node)}
    for _ in functions:
        found |= {name for name, node in functions.items() if dataflow.names_in(node) & found}
    return found


def _block(statements: list[ast.stmt], state: _State) -> tuple[list[ast.stmt], list[int]]:
    """The statements, instrumented, and the numbers of the tests among and below them."""
    changed: list[ast.stmt] = []
    numbers: list[int] = []
    for statement in statements:
        made, inside = _statement(statement, state)
        changed.append(made)
        numbers += inside
    return changed, numbers


# Why case by case: each assertion that depends on the program is to count by itself, passed or not, and none that a
# program could multiply or skip. So a statement is wrapped as one test, or its parts are looked at in turn, or it is
# left alone. Example: `for x in [1, 2]: assert f(x)` -> a loop of two tests; `for x in f(3): assert x` -> one test.
def _statement(node: ast.stmt, state: _State) -> tuple[ast.stmt, list[int]]:
    if isinstance(node, _DEFINITIONS) or not dataflow.names_in(node) & state.dependent:
        return node, []
    if isinstance(node, ast.Assert):
        return _recorded("test", node, state)
    if isinstance(node, ast.For | ast.While) and _asks_the_program(node, state):
        return _recorded("test", node, state) if _can_fail(node, state) else (node, [])
    if isinstance(node, ast.For):
        return _loop(node, state)
    if isinstance(node, ast.Try):
        return _recorded("test", node, state) if _can_fail(node, state) else (node, [])
    if isinstance(node, ast.If):
        if _raises(node) and not _asserts(node):
            return _recorded("test", node, state)
        return _parts(node, state, ("body", "orelse"))
    if isinstance(node, ast.While):
        return _parts(node, state, ("body", "orelse"))
    if isinstance(node, ast.With | ast.AsyncWith):
        if _asserts(node) or _raises(node):
            return _parts(node, state, ("body",))
        return _recorded("test", node, state) if _expects_an_error(node) else (node, [])
    if isinstance(node, ast.Expr) and _is_assertion_call(node.value, state.checking):
        return _recorded("calls", node, state)
    return node, []


def _asks_the_program(node: ast.For | ast.While, state: _State) -> bool:
    """Whether the program decides how often a loop goes round: then it is one test, or length would pay."""
    if isinstance(node, ast.While):
        return True
    endless = any(word in ast.unparse(node.iter) for word in ("count(", "cycle(", "repeat("))
    return endless or state.sizes.decided_by_program(node.iter)


def _parts(node: ast.stmt, state: _State, fields: tuple[str, ...]) -> tuple[ast.stmt, list[int]]:
    numbers: list[int] = []
    for name in fields:
        body, inside = _block(getattr(node, name), state)
        setattr(node, name, body)
        numbers += inside
    return node, numbers


def _recorded(method: str, node: ast.stmt, state: _State) -> tuple[ast.stmt, list[int]]:
    """`with __recorder__.METHOD(NUMBER): node`."""
    number = state.num_tests
    state.num_tests += 1
    return _with(f"{RECORDER}.{method}({number})", [node], node), [number]


def _loop(node: ast.For, state: _State) -> tuple[ast.stmt, list[int]]:
    """A loop with tests in it: each iteration is tried, whatever becomes of the others."""
    node.orelse, after = _block(node.orelse, state)
    node.body, numbers = _block(node.body, state)
    if not numbers:
        return node, after
    node.body = [_with(f"{RECORDER}.iteration({tuple(numbers)})", node.body, node)]
    return _with(f"{RECORDER}.loop()", [node], node), [*numbers, *after]


def _with(expression: str, body: list[ast.stmt], where: ast.stmt) -> ast.stmt:
    context = ast.parse(expression, mode="eval").body
    for part in ast.walk(context):
        ast.copy_location(part, where)
    return ast.copy_location(ast.With([ast.withitem(context)], body), where)


def _inside(node: ast.AST) -> list[ast.AST]:
    """All nodes below `node` but those in functions that it defines."""
    found: list[ast.AST] = []
    waiting = list(ast.iter_child_nodes(node))
    while waiting:
        each = waiting.pop()
        if not isinstance(each, _DEFINITIONS):
            found.append(each)
            waiting += ast.iter_child_nodes(each)
    return found


def is_constant(node: ast.Assert) -> bool:
    """Whether the assertion is about a literal: it says nothing, or it always fails, as `raise` does."""
    return isinstance(node.test, ast.Constant)


def _asserts(node: ast.AST) -> bool:
    return any(isinstance(each, ast.Assert) and not is_constant(each) for each in _inside(node))


def _raises(node: ast.AST) -> bool:
    return any(
        isinstance(each, ast.Raise) or (isinstance(each, ast.Assert) and is_constant(each)) for each in _inside(node)
    )


def _can_fail(node: ast.AST, state: _State) -> bool:
    calls = (each for each in _inside(node) if isinstance(each, ast.Call))
    return _asserts(node) or _raises(node) or any(_is_assertion_call(call, state.checking) for call in calls)


def _expects_an_error(node: ast.With | ast.AsyncWith) -> bool:
    return any("raises" in ast.unparse(item.context_expr).lower() for item in node.items)


def _is_assertion_call(node: ast.expr, checking: set[str]) -> bool:
    """A call of the test's own function, or of what is named like an assertion: `np.testing.assert_allclose(...)`."""
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    own = isinstance(node.func, ast.Name) and name in checking
    return own or any(word in name.lower() for word in _ASSERTING)
