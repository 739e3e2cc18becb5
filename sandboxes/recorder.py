"""Counts the tests of a job while the instrumented test runs: each assertion and each iteration, passed or failed.

Runs on the judge's side only. What was not reached is not passed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    """The results of one run of a test; `first_failure` is the error of the first test that failed."""

    def __init__(self, session: Session, stop_at_failure: bool, blame: Callable[[BaseException], None]):
        """`blame` raises JobError for an error that the test is at fault for, whatever the program answers."""
        self.session, self.stop_at_failure, self.blame = session, stop_at_failure, blame
        self.results: list[bool] = []
        self.first_failure: BaseException | None = None
        self.first_was_raised = False  # by the program
        self.only_unsupported = True  # all that failed did so because an answer cannot travel
        self.aborted = False  # an iteration of the loop that is being run
        self.blocks: list[set[int]] = [set()]  # the tests that were made, for each block that is being run
        self.depth = 0  # of tests within tests, which are parts of the outermost

    def test(self, number: int) -> _Test:
        """A test that fails if what it encloses raises."""
        return _Test(self, number, counts_alone=True)

    def calls(self, number: int) -> _Test:
        """The same of a call that may make tests of its own, which are then counted instead."""
        return _Test(self, number, counts_alone=False)

    def iteration(self, numbers: tuple[int, ...]) -> _Iteration:
        """One round of a loop with these tests in it."""
        return _Iteration(self, numbers)

    def loop(self) -> _Loop:
        """A loop of such rounds."""
        return _Loop(self)

    def record(self, passed: bool, error: BaseException | None = None) -> None:
        """Count one test."""
        self.results.append(passed)
        if len(self.results) > MOST_TESTS:
            raise Stop
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

    def unmade(self, numbers: tuple[int, ...], error: BaseException) -> None:
        """Count as failed those of `numbers` that the innermost block has not reached, at least one."""
        missing = [number for number in numbers if number not in self.blocks[-1]]
        self.made(numbers)
        for _ in missing or [None]:
            self.record(False, error)


def _must_end(error: BaseException | None) -> bool:
    return isinstance(error, Overran | Stop | JobError)


class _Test:
    def __init__(self, recorder: Recorder, number: int, counts_alone: bool):
        self.recorder, self.number, self.counts_alone = recorder, number, counts_alone

    def __enter__(self) -> None:
        recorder = self.recorder
        self.inert = recorder.depth > 0
        recorder.depth += self.counts_alone
        self.num_before = len(recorder.results)
        self.num_gone = recorder.session.num_gone

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> bool:
        recorder = self.recorder
        recorder.depth -= self.counts_alone
        if _must_end(error) or self.inert:
            return False
        recorder.made((self.number,))
        if error is not None:
            recorder.blame(error)
        if error is None and recorder.session.num_gone > self.num_gone:
            error = Gone()  # swallowed by the test
        alone = self.counts_alone or len(recorder.results) == self.num_before
        if alone or (error is not None and all(recorder.results[self.num_before :])):
            recorder.record(error is None, error)
        return error is not None


class _Iteration:
    def __init__(self, recorder: Recorder, numbers: tuple[int, ...]):
        self.recorder, self.numbers = recorder, numbers

    def __enter__(self) -> None:
        self.recorder.blocks.append(set())

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> bool:
        recorder = self.recorder
        try:
            if error is None or _must_end(error) or recorder.depth:
                return False
            recorder.blame(error)
            recorder.unmade(self.numbers, error)
            recorder.aborted = True
            return True
        finally:
            recorder.blocks.pop()


class _Loop:
    def __init__(self, recorder: Recorder):
        self.recorder = recorder

    def __enter__(self) -> None:
        self.outer, self.recorder.aborted = self.recorder.aborted, False

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> bool:
        aborted, self.recorder.aborted = self.recorder.aborted, self.outer
        if error is None and aborted:
            raise Aborted("an iteration before this was given up")
        return False
