"""The judge of one slot: takes jobs from the trainer, asks the worker, compares, and gives the verdict.

It holds tests and expected answers and never executes the program's text. One process per slot; ends with the trainer.
"""

from __future__ import annotations

import gc
import json
import math
import os
import resource
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

from sandboxes import backends, codec, framing, grading, proxy, worker
from sandboxes.compiled_test import CompiledTest, compile_test
from sandboxes.contract import JobError, Outcome
from sandboxes.executor import LocalExecutor
from sandboxes.program import PATIENCE, Program, ProgramEnded, WorkerExit
from sandboxes.spawn import ZygoteLost

if TYPE_CHECKING:
    from sandboxes.remote import RemoteExecutor, RemoteProgram

_OWN_MEMORY_BYTES = 2 << 30  # for a test's own work on the program's answers


class TestOverran(BaseException):
    """The trusted test itself took too long."""


def main(descriptor: int, config_text: str) -> None:
    """Serve the trainer on `descriptor` until it closes."""
    config = json.loads(config_text)
    signal.signal(signal.SIGALRM, _on_alarm)
    link = socket.socket(fileno=descriptor)
    judge = Judge(config)
    try:
        framing.send(link, {"lacks": judge.start_executor(config["limits"]).lacks})
        gc.collect()
        gc.freeze()
        while True:
            framing.send(link, judge.handle(framing.receive(link)))
            gc.collect()  # takes microseconds; failed jobs leave cycles that hold all their answers
    except ZygoteLost as error:  # at the start; later ones are replies
        framing.send(link, {"failed": str(error)})
    except framing.Closed:
        judge.close()


def _on_alarm(_number: int, _frame: Any) -> None:
    raise TestOverran


class Judge:
    """Judges one job at a time; owns the slot's executor and replaces it when it is lost."""

    def __init__(self, config: dict[str, Any]):
        self.config = config
        self.limits: dict[str, Any] = config["limits"]
        self.executor: LocalExecutor | RemoteExecutor | None = None

    def start_executor(self, limits: dict[str, Any]) -> LocalExecutor | RemoteExecutor:
        """Start the executor of the configured backend and tier. Raises ZygoteLost."""
        backend = self.config["backend"]
        if backends.is_remote(backend):
            from sandboxes.remote import RemoteExecutor  # its HTTP client is slow to import

            self.executor = RemoteExecutor(backend)
        else:
            self.executor = LocalExecutor(self.config["tier"], backend, self.config["packages"], limits)
        return self.executor

    def _provide_executor(self, limits: dict[str, Any]) -> LocalExecutor | RemoteExecutor:
        """A usable zygote for `limits`: those that the kernel keeps for the whole slot need a zygote of their own."""
        if self.executor is not None and not (self.executor.usable and self.executor.serves(limits)):
            self.close()
        return self.start_executor(limits) if self.executor is None else self.executor

    def close(self) -> None:
        """End the executor."""
        if self.executor is not None:
            self.executor.close()
            self.executor = None

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request: a verdict, or trouble (`retry` says whether another try makes sense)."""
        try:
            self.limits = request.get("limits") or self.limits
            _guard_own_cpu(PATIENCE * self.limits["wall_seconds"])
            return {"verdict": self._judge(request)}
        except JobError as error:
            return {"trouble": str(error), "retry": False}
        except (ZygoteLost, OSError) as error:
            self.close()
            return {"trouble": f"{type(error).__name__}: {error}", "retry": True}

    def _open_program(self) -> tuple[LocalExecutor | RemoteExecutor, Program | RemoteProgram]:
        """A worker of a living executor; one that has died since the last job is replaced."""
        try:
            executor = self._provide_executor(self.limits)
            return executor, executor.open_program(self.limits)
        except (ZygoteLost, OSError):
            self.close()
            executor = self._provide_executor(self.limits)
            return executor, executor.open_program(self.limits)

    def _judge(self, request: dict[str, Any]) -> dict[str, Any]:
        if "calls" in request:
            work = codec.decode(request["calls"].encode(), codec.ARGUMENT_DEPTH)
            total = len(work)
        else:
            work = compile_test(request["test"], request["prelude"], request["entry_point"])
            total = max(len(work.assert_lines), 1)
        executor, program = self._open_program()
        try:
            signal.setitimer(signal.ITIMER_REAL, executor.test_seconds(self.limits), 0.5)
            _limit_own_memory(_OWN_MEMORY_BYTES)
            score, end = self._score(request, work, program)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            _limit_own_memory(None)
            remains = program.close()
        if end is not None:
            outcome = self._outcome_of_end(end, remains.end, executor)
            score = grading.Score(outcome, end.tests_passed, total, end.detail or _describe(remains.end.status))
        assert score is not None  # the program answered to the end, or it ended
        return {
            "outcome": score.outcome.value,
            "tests_passed": score.tests_passed,
            "tests_total": score.tests_total,
            "cpu_seconds": remains.end.cpu_seconds,
            "wall_seconds": remains.wall_seconds,
            "exit_status": None if end is None else _exit_status(remains.end.status),
            "stdout": remains.stdout,
            "stderr": remains.stderr,
            "detail": score.detail.encode("utf-8", "replace").decode(),  # the program's words may not be valid Unicode
        }

    def _score(
        self, request: dict, work: list | CompiledTest, program: proxy.Program
    ) -> tuple[grading.Score | None, ProgramEnded | None]:
        """(score, None) if the program answered to the end of the test, (None, how it ended) otherwise."""
        limits = self.limits
        ahead = () if isinstance(work, list) else work.ahead
        program.send(worker.load_frame(request["source"], request["entry_point"]), *ahead)
        try:
            if isinstance(work, list):
                return grading.run_calls(work, program, limits["result_depth"]), None
            candidate = proxy.Candidate(program, limits["result_depth"], len(ahead))
            return grading.run_test(work, request["entry_point"], candidate), None
        except ProgramEnded as end:
            return None, end
        except TestOverran:
            return None, ProgramEnded(Outcome.TIMEOUT_WALL, "the test overran on the program's answers")

    def _outcome_of_end(
        self, ended: ProgramEnded, end: WorkerExit, executor: LocalExecutor | RemoteExecutor
    ) -> Outcome:
        """What the kernel's facts say about a program that stopped answering. Raises ZygoteLost if we were to blame."""
        over_cpu = end.cpu_seconds >= self.limits["cpu_seconds"] or end.status == signal.SIGXCPU
        if over_cpu and ended.outcome in (None, Outcome.TIMEOUT_WALL):
            return Outcome.TIMEOUT_CPU
        if ended.outcome is not None:
            return ended.outcome
        if os.WIFEXITED(end.status):
            return Outcome.EXITED
        if os.WTERMSIG(end.status) != signal.SIGKILL:
            return Outcome.CRASHED
        if executor.ran_out_of_memory():
            return Outcome.MEMORY
        if not end.ended_itself:  # it had closed its channel and gone on
            return Outcome.PROTOCOL
        if executor.tier in ("A", "B"):  # where a program cannot do that to itself: see seccomp.worker_filter
            raise ZygoteLost("the worker was killed from outside")
        return Outcome.CRASHED


def _guard_own_cpu(seconds: float) -> None:
    """Let the kernel end a judge that a test keeps busy in C code: with SIGXCPU, which the trainer understands."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds) + 2, most))


def _limit_own_memory(num_bytes: int | None) -> None:
    """A test that builds something huge from an answer ends with MemoryError. None while zygotes may be started."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (most if num_bytes is None else num_bytes, most))


def _exit_status(status: int) -> int:
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


def _describe(status: int) -> str:
    if os.WIFEXITED(status):
        return f"exit {os.WEXITSTATUS(status)}"
    return signal.strsignal(os.WTERMSIG(status)) or f"signal {os.WTERMSIG(status)}"
