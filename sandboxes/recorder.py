"""Counts the tests of a job while the instrumented test runs: each assertion and each iteration, passed or failed.

Runs on the judge's side only. What was not reached is not passed.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any, Literal

from sandboxes.contract import JobError
from sandboxes.handles import Unsupported
from sandboxes.proxy import Gone, Session

MOST_TESTS = 1_000_000


class Overran(BaseException):
    """The trusted test itself took too long."""


class Stop(BaseException):
    """The test need not go on: nothing more can come of it."""


class Aborted(Exception):
    """An iteration of a loop was given up, so what comes after the loop cannot be relied on."""


class Recorder:
    """The results of one run of a test; `first_failure` is the error of the first test that failed.

    Tests count one by one in the body of the test, and in functions of the test that a statement of it calls directly.
    Elsewhere (in a function that the program calls, for each item of an answer, in a test within a test) they are parts
    of what they are made in: no program decides how many tests there are.
    """

    def __init__(self, session: Session, stop_at_failure: bool, blame: Callable[[BaseException], None]):
        """`blame` raises JobError for an error that the test is at fault for, whatever the program answers."""
        self.session, self.stop_at_failure, self.blame = session, stop_at_failure, blame
        self.results: list[bool] = []
        self.first_failure: BaseException | None = None
        self.first_was_raised = False  # by the program
        self.only_unsupported = True  # all that failed did so because an answer cannot travel
        self.aborted = False  # an iteration of the loop that is being run
        self.blocks: list[set[int]] = [set()]  # the tests that were made, for each block that is being run
        self.callers: list[types.FrameType | None] = []  # whose direct callees make tests that count; None: nobody's

    def test(self, number: int) -> _Test:
        """A test that fails if what it encloses raises."""
        return _Test(self, number, self._counts(sys._getframe(1)), None)

    def calls(self, number: int) -> _Test:
        """The same of a call that may make tests of its own, which are then counted instead."""
        frame = sys._getframe(1)
        return _Test(self, number, self._counts(frame), frame)

    def iteration(self, numbers: tuple[int, ...]) -> _Iteration:
        """One round of a loop with these tests in it."""
        return _Iteration(self, numbers, self._counts(sys._getframe(1)))

    def loop(self) -> _Loop:
        """A loop of such rounds."""
        return _Loop(self)

    def _counts(self, frame: types.FrameType) -> bool:
        return bool(self.callers) and self.callers[-1] is not None and frame.f_back is self.callers[-1]

    def record(self, passed: bool, error: BaseException | None = None) -> None:
        """Count one test."""
        self.results.append(passed)
        if len(self.results) > MOST_TESTS:
            raise Overran
        if not passed:
            self.only_unsupported &= isinstance(error, Unsupported)
            if self.first_failure is None:
                self.first_failure, self.first_was_raised = error, error is self.session.failure
            if self.stop_at_failure:
                raise Stop

    def made(self, numbers: tuple[int, ...]) -> None:
        """Note that these tests have been counted."""
        for block in self.blocks:
            block.update(numbers)

    def finish(self, numbers: tuple[int, ...]) -> None:
        """Count as failed those of `numbers` that were never reached."""
        self.results += [False] * len([number for number in numbers if number not in self.blocks[0]])

    def unmade(self, numbers: tuple[int, ...], error: BaseException, num_before: int = 0) -> None:
        """Count as failed those of `numbers` that the innermost block has not reached, and one if nothing else failed.

        `num_before`: the tests that were counted before the block began.
        """
        missing = [number for number in numbers if number not in self.blocks[-1]]
        self.made(numbers)
        for _ in missing or ([-1] if all(self.results[num_before:]) else []):
            self.record(False, error)


def _must_end(error: BaseException | None) -> bool:
    return isinstance(error, Overran | Stop | JobError)


class _Test:
    def __init__(self, recorder: Recorder, number: int, counts: bool, caller: types.FrameType | None):
        """`caller`: whose direct callees make tests of their own within this one."""
        self.recorder, self.number, self.counts, self.caller = recorder, number, counts, caller

    def __enter__(self) -> None:
        recorder = self.recorder
        recorder.callers.append(self.caller if self.counts else None)
        self.num_before, self.num_gone = len(recorder.results), recorder.session.num_gone

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> bool:
        recorder = self.recorder
        recorder.callers.pop()
        if _must_end(error) or not self.counts:
            return False
        recorder.made((self.number,))
        if error is not None:
            recorder.blame(error)
        if error is None and recorder.session.num_gone > self.num_gone:
            error = Gone()  # swallowed by the test
        inside = recorder.results[self.num_before :]
        if not inside or (error is not None and all(inside)):
            recorder.record(error is None, error)
        return error is not None


class _Iteration:
    def __init__(self, recorder: Recorder, numbers: tuple[int, ...], counts: bool):
        self.recorder, self.numbers, self.counts = recorder, numbers, counts

    def __enter__(self) -> None:
        self.recorder.blocks.append(set())
        self.num_before = len(self.recorder.results)

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> bool:
        recorder = self.recorder
        try:
            if error is None or _must_end(error) or not self.counts:
                return False
            recorder.blame(error)
            recorder.unmade(self.numbers, error, self.num_before)
            recorder.aborted = True
            return True
        finally:
            recorder.blocks.pop()


class _Loop:
    def __init__(self, recorder: Recorder):
        self.recorder = recorder

    def __enter__(self) -> None:
        self.outer, self.recorder.aborted = self.recorder.aborted, False

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> Literal[False]:
        aborted, self.recorder.aborted = self.recorder.aborted, self.outer
        if error is None and aborted:
            raise Aborted("an iteration before this was given up")
        return False
