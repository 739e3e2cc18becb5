"""The trusted half of a job: runs the test against a proxy of the candidate and counts what held.

The test text is trusted and executed here; the program's text never is.
Raises JobError if the test itself is unusable, ProgramEnded if a limit of the program ends it all.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from sandboxes import guards
from sandboxes.compiled_test import CompiledTest
from sandboxes.contract import JobError, Outcome
from sandboxes.instrument import RECORDER
from sandboxes.program import ProgramEnded
from sandboxes.proxy import Candidate, Gone, Session
from sandboxes.recorder import Overran, Recorder, Stop


@dataclass(frozen=True)
class Score:
    """Outcome and results of one judged program; `end` is why it stopped answering, if it did."""

    outcome: Outcome
    results: tuple[bool, ...]
    detail: str = ""
    end: Exception | None = None


def run_test(compiled: CompiledTest, entry_point: str, session: Session, stop_at_failure: bool) -> Score:
    """Execute the test against the proxy."""
    recorder = Recorder(session, stop_at_failure, lambda error: _blame_test(error, session, compiled))
    candidate = Candidate(session, entry_point)
    namespace: dict[str, Any] = {"__name__": "test", RECORDER: recorder}
    session.namespace, session.test_packages = namespace, compiled.imported
    namespace["__builtins__"] = guards.builtins_for(session, compiled.own_text)
    guards.begin(session, compiled.own_code)
    error: BaseException | None = None
    recorder.callers.append(sys._getframe())
    try:
        if compiled.prelude is not None:
            exec(compiled.prelude, namespace)  # trusted text
        namespace[candidate.__name__] = candidate
        for name in compiled.program_classes:
            namespace[name] = session.operate("name", name)
        session.num_answers = session.num_told = 0
        exec(compiled.code, namespace)  # trusted text
        if compiled.has_check:
            namespace["check"](candidate)
    except JobError:
        raise
    except Stop:
        recorder.finish(compiled.tests)
        error = recorder.first_failure
    except Overran as overran:
        error = overran
    except BaseException as raised:
        error = raised
        recorder.blame(raised)
        _count_unreached(recorder, compiled, raised)
    finally:
        guards.end()
    return _score(recorder, session, error)


def _count_unreached(recorder: Recorder, compiled: CompiledTest, error: BaseException) -> None:
    try:
        recorder.unmade(compiled.tests, error)
    except Stop:
        recorder.finish(compiled.tests)


def _score(recorder: Recorder, session: Session, error: BaseException | None) -> Score:
    results = tuple(recorder.results)
    failed = recorder.first_failure or error
    if isinstance(error, Overran):
        return Score(Outcome.TIMEOUT_WALL, (*results, False), "the test overran on the program's answers")
    trouble = session.ended is not None and not isinstance(session.ended, ProgramEnded)
    if session.ended is not None and (trouble or failed is None or isinstance(failed, Gone)):
        return Score(Outcome.CRASHED, _earned(results or (False,), session), "", session.ended)
    if session.num_answers == 0:
        raise JobError("the test never called the candidate")
    if failed is None:
        return Score(Outcome.PASSED, results or (True,))
    outcome = Outcome.EXCEPTION if recorder.first_was_raised else Outcome.WRONG_ANSWER
    if recorder.only_unsupported:
        outcome = Outcome.UNSUPPORTED
    return Score(outcome, _earned(results, session), describe(failed))


def _earned(results: tuple[bool, ...], session: Session) -> tuple[bool, ...]:
    """A program that never answered but with None or an exception has earned nothing."""
    return results if session.num_told else (False,) * len(results)


def _blame_test(error: BaseException, session: Session, compiled: CompiledTest) -> None:
    """Raise JobError if `error` is the test's own fault, whatever the candidate answers."""
    if isinstance(error, Gone | Stop | Overran | JobError) or error is session.failure or session.ended is not None:
        return
    is_unknown_name = isinstance(error, NameError) and not isinstance(error, UnboundLocalError)
    if is_unknown_name and error.name is not None and error.name not in compiled.assigned:  # type: ignore[attr-defined]
        raise JobError(f"the test uses a name it does not define ({error}); pass its definition as Job.prelude")
    if isinstance(error, ImportError) and error.name is not None and error.name.partition(".")[0] in compiled.imported:
        raise JobError(
            f"the test needs a module that the judge lacks ({error}); allow it by Sandbox(test_packages=...)"
        )
    if session.num_answers == 0 and isinstance(error, Exception):
        raise JobError(f"the test failed before the candidate had answered ({describe(error)})")


def describe(error: BaseException) -> str:
    """The error in words."""
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except (Exception, Gone):  # its words fail (a number of too many digits), and are all that is wanted
        return type(error).__name__


def run_calls(calls: list[Any], session: Session, stop_at_failure: bool) -> Score:
    """Compare the answers to calls that have been sent ahead. `calls` holds (args, kwargs, expected)."""
    recorder = Recorder(session, stop_at_failure, lambda error: None)
    recorder.callers.append(sys._getframe(1))
    try:
        for args, kwargs, expected in calls:
            with recorder.test(0):
                assert _equal(session.call(tuple(args), dict(kwargs)), expected)
    except Stop:
        pass
    recorder.results += [False] * (len(calls) - len(recorder.results))
    score = _score(recorder, session, None)
    return Score(score.outcome, tuple(recorder.results), score.detail.removeprefix("AssertionError: "), score.end)


def _equal(answer: Any, expected: Any) -> bool:
    try:
        return bool(answer == expected)
    except RecursionError:
        return False
