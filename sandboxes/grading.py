"""The trusted half of a job: runs the test against a proxy of the candidate and counts what held.

The test text is trusted and executed here; the program's text never is. The proxy returns decoded data only.
Raises JobError if the test itself is unusable, BoxEnded if the program can answer no more.
"""

from __future__ import annotations

import ast
import builtins
import functools
import types
from dataclasses import dataclass
from typing import Any, Protocol

from sandboxes import box, codec
from sandboxes.contract import JobError, Outcome
from sandboxes.program import BoxEnded
from sandboxes.spawn import ZygoteLost

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_ENDS_LOOPS = ("StopIteration", "StopAsyncIteration")
_CONDITIONAL = (ast.BoolOp, ast.IfExp, ast.Lambda, ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom, *_COMPREHENSIONS)


class Program(Protocol):
    """A running program, here or on another machine."""

    def send(self, *bodies: bytes) -> None: ...

    def receive(self) -> tuple[bytes, bytes]: ...


class CandidateError(Exception):
    """The candidate raised an exception of a type the judge does not know."""


class Gone(BaseException):
    """Ends the test body when the program can answer no more; `except Exception` in a test does not catch it."""


@dataclass(frozen=True)
class Score:
    """Outcome and counts of one judged program."""

    outcome: Outcome
    tests_passed: int
    tests_total: int
    detail: str = ""


@dataclass(frozen=True)
class PreparedTest:
    """A compiled test: its code, the prelude's code, the lines of its asserts and the names that it assigns."""

    code: types.CodeType
    prelude: types.CodeType | None
    assert_lines: tuple[int, ...]
    assigned: frozenset[str]
    ahead: tuple[bytes, ...]  # frames of the calls the test is certain to make, in order


class Candidate:
    """What `check(candidate)` gets: a function that asks the box. Remembers how the program failed."""

    def __init__(self, program: Program, result_depth: int, num_sent_ahead: int):
        self._program, self._depth = program, result_depth
        self._num_sent_ahead = num_sent_ahead
        self.num_answers = 0
        self.failure: BaseException | None = None
        self.ended: Exception | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._num_sent_ahead:
            self._num_sent_ahead -= 1
        else:
            self._program.send(encode_call(args, kwargs))
        try:
            tag, body = self._program.receive()
        except (BoxEnded, ZygoteLost, OSError) as end:  # the last two are the sandbox's trouble, never a wrong answer
            self.ended = end
            raise Gone from None
        try:
            return self._answer(tag, body)
        except BoxEnded as end:
            self.ended = end
            raise Gone from None

    def _answer(self, tag: bytes, body: bytes) -> Any:
        value = read_answer(tag, body, self._depth)
        self.num_answers += 1
        if tag == box.RAISED:
            self.failure = value
            raise value
        return value


def encode_call(args: Any, kwargs: dict[str, Any]) -> bytes:
    """One call as a frame. Raises JobError for arguments that are not data, TypeError if the program made them so."""
    try:
        return box.call_frame(tuple(args), dict(kwargs))
    except ValueError as error:
        if codec.holds_opaque([args, kwargs]):
            raise TypeError("the test hands back an answer that is not data") from None
        raise JobError(f"an argument of a test cannot be sent: {error}") from None


def read_answer(tag: bytes, body: bytes, max_depth: int) -> Any:
    """The value in an answer, or the exception the candidate raised. Raises BoxEnded for every other frame."""
    try:
        if tag == box.VALUE:
            return codec.decode(body, max_depth)
        if tag == box.RAISED:
            return _exception(*codec.decode(body, 4))
        if tag == box.LOAD_FAILED:
            raise BoxEnded(Outcome.LOAD_ERROR, str(_exception(*codec.decode(body, 4)).__class__.__name__))
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise BoxEnded(Outcome.PROTOCOL, "malformed answer") from None
    if tag == box.EXITED:
        raise BoxEnded(Outcome.EXITED, "SystemExit")
    if tag == box.OUT_OF_MEMORY:
        raise BoxEnded(Outcome.MEMORY, "MemoryError")
    raise BoxEnded(Outcome.PROTOCOL, "answer too large or too deep" if tag == box.TOO_LARGE else "unknown frame")


def _exception(names: list[str], message: str) -> Exception:
    """A built-in exception of the first class we know by name, so that tests may expect it.

    Never StopIteration: raised inside `all(map(...))` it would end the test's own loop instead of failing the test.
    """
    if type(names) is not list:
        raise ValueError("the names of the classes are a list")
    for name in names:
        if name in _ENDS_LOOPS:
            break
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception) and kind is not Exception:
            try:
                return kind(str(message))
            except TypeError:  # UnicodeDecodeError and its like want more arguments
                continue
    return CandidateError(f"{names[0] if names else 'Exception'}: {message}")


@functools.lru_cache(maxsize=512)
def prepare(test: str, prelude: str, entry_point: str) -> PreparedTest:
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
    return PreparedTest(code, prelude_code, tuple(lines), assigned, certain_calls(tree, entry_point))


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


def run_test(prepared: PreparedTest, entry_point: str, candidate: Candidate) -> Score:
    """Execute the test body against the proxy."""
    total = len(prepared.assert_lines)
    namespace: dict[str, Any] = {"__name__": "test"}
    try:
        if prepared.prelude is not None:
            exec(prepared.prelude, namespace)  # trusted text
        namespace[entry_point] = candidate
        exec(prepared.code, namespace)  # trusted text
        namespace["check"](candidate)
    except Gone:
        pass
    except JobError:
        raise
    except BaseException as error:
        if candidate.ended is None:
            return _failed_score(error, candidate, prepared)
    if candidate.ended is not None:
        raise candidate.ended
    if candidate.num_answers == 0:
        raise JobError("the test never called the candidate")
    return Score(Outcome.PASSED, total, total)


def _failed_score(error: BaseException, candidate: Candidate, prepared: PreparedTest) -> Score:
    line = _test_line(error)
    passed = sum(assert_line < line for assert_line in prepared.assert_lines)
    total = max(len(prepared.assert_lines), 1)
    if _lacks_a_name(error, prepared):
        raise JobError(f"the test uses a name it does not define ({error}); pass its definition as Job.prelude")
    if candidate.num_answers == 0 and isinstance(error, Exception):
        raise JobError(f"the test failed before the candidate had answered ({_describe(error)})")
    outcome = Outcome.EXCEPTION if error is candidate.failure else Outcome.WRONG_ANSWER
    return Score(outcome, passed, total, _describe(error))


def _lacks_a_name(error: BaseException, prepared: PreparedTest) -> bool:
    """Whether the test needs a definition or a module that is not there, whatever the candidate answers.

    Exceptions of the candidate bear no `name`; one that the test assigns may be missing because of an answer.
    """
    if not isinstance(error, NameError | ImportError) or isinstance(error, UnboundLocalError):
        return False
    return error.name is not None and error.name not in prepared.assigned


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except Exception:  # its words fail (a number of too many digits), and are all that is wanted
        return type(error).__name__


def _test_line(error: BaseException) -> int:
    """Line of the test's own code where `error` passed."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<test>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def run_calls(calls: list, program: Program, result_depth: int) -> Score:
    """Send all calls at once and compare the answers as they come. `calls` holds (args, kwargs, expected)."""
    for args, kwargs, _ in calls:
        program.send(encode_call(args, kwargs))
    for index, (_, _, expected) in enumerate(calls):
        try:
            tag, body = program.receive()
            answer = read_answer(tag, body, result_depth)
        except BoxEnded as end:
            end.tests_passed = index
            raise
        if tag == box.RAISED:
            return Score(Outcome.EXCEPTION, index, len(calls), _describe(answer))
        if not _equal(answer, expected):
            return Score(Outcome.WRONG_ANSWER, index, len(calls), "")
    return Score(Outcome.PASSED, len(calls), len(calls))


def _equal(answer: Any, expected: Any) -> bool:
    try:
        return bool(answer == expected)
    except (TypeError, RecursionError):  # an Opaque somewhere inside
        return False
