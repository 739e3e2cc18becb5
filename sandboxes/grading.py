"""The trusted half of a job: runs the test against a proxy of the candidate and counts what held.

The test text is trusted and executed here; the program's text never is.
Raises JobError if the test itself is unusable, ProgramEnded if the program can answer no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sandboxes import worker
from sandboxes.compiled_test import CompiledTest
from sandboxes.contract import JobError, Outcome
from sandboxes.program import ProgramEnded
from sandboxes.proxy import Candidate, Gone, Program, encode_call, read_answer


@dataclass(frozen=True)
class Score:
    """Outcome and counts of one judged program."""

    outcome: Outcome
    tests_passed: int
    tests_total: int
    detail: str = ""


def run_test(prepared: CompiledTest, entry_point: str, candidate: Candidate) -> Score:
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


def _failed_score(error: BaseException, candidate: Candidate, prepared: CompiledTest) -> Score:
    line = _test_line(error)
    passed = sum(assert_line < line for assert_line in prepared.assert_lines)
    total = max(len(prepared.assert_lines), 1)
    if _lacks_a_name(error, prepared):
        raise JobError(f"the test uses a name it does not define ({error}); pass its definition as Job.prelude")
    if candidate.num_answers == 0 and isinstance(error, Exception):
        raise JobError(f"the test failed before the candidate had answered ({_describe(error)})")
    outcome = Outcome.EXCEPTION if error is candidate.failure else Outcome.WRONG_ANSWER
    return Score(outcome, passed, total, _describe(error))


def _lacks_a_name(error: BaseException, prepared: CompiledTest) -> bool:
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
        except ProgramEnded as end:
            end.tests_passed = index
            raise
        if tag == worker.RAISED:
            return Score(Outcome.EXCEPTION, index, len(calls), _describe(answer))
        if not _equal(answer, expected):
            return Score(Outcome.WRONG_ANSWER, index, len(calls), "")
    return Score(Outcome.PASSED, len(calls), len(calls))


def _equal(answer: Any, expected: Any) -> bool:
    try:
        return bool(answer == expected)
    except (TypeError, RecursionError):  # an Opaque somewhere inside
        return False
