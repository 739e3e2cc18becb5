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
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sandboxes import backends, codec, framing, grading, guards, kernel, proxy, replies, worker
from sandboxes.comparison import matches
from sandboxes.compiled_test import CompiledTest, compile_test
from sandboxes.contract import JobError, Outcome
from sandboxes.executor import LocalExecutor
from sandboxes.finder import Finder
from sandboxes.program import Program, ProgramEnded, Remains, WorkerExit
from sandboxes.recorder import Overran
from sandboxes.spawn import ZygoteLost

if TYPE_CHECKING:
    from sandboxes.remote import RemoteExecutor, RemoteProgram

_MOST_DIGITS = 20_000  # of an integer in a test, or in what it makes of an answer: the work grows with the square
_MOST_SLOW_CASES = 3  # of one program that reach a time limit
_SLOW = (Outcome.TIMEOUT_CPU.value, Outcome.TIMEOUT_WALL.value)
_OWN_MEMORY_BYTES = 2 << 30  # for a test's own work on the program's answers


def main(descriptor: int, config_text: str) -> None:
    """Serve the trainer on `descriptor` until it closes."""
    config = json.loads(config_text)
    signal.signal(signal.SIGALRM, _on_alarm)
    link = socket.socket(fileno=descriptor)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)  # the zygote's own children are to be collected here
    guards.install()
    sys.meta_path.append(Finder(config["test_packages"]))
    sys.set_int_max_str_digits(_MOST_DIGITS)
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
    raise Overran


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
            self.executor = LocalExecutor(self.config, limits)
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
            _guard_own_cpu(self.config["patience"] * self.limits["wall_seconds"] * len(request.get("cases", "1")))
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
        if "cases" in request:
            return self._judge_cases(request)
        if "calls" in request:
            work = codec.decode(request["calls"].encode(), codec.ARGUMENT_DEPTH)
        else:
            work = compile_test(request["test"], request["prelude"], request["entry_point"])
        executor, program = self._open_program()
        try:
            signal.setitimer(signal.ITIMER_REAL, executor.test_seconds(self.limits), 0.5)
            _limit_own_memory(_OWN_MEMORY_BYTES)
            score = self._score(request, work, program)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            _limit_own_memory(None)
            remains = program.close()
        return self._verdict(score, remains, executor)

    def _score(
        self, request: dict[str, Any], work: list[Any] | CompiledTest, program: Program | RemoteProgram
    ) -> grading.Score:
        depth, stop = self.limits["result_depth"], request["stop_at_failure"]
        load = worker.load_frame(request["source"], request["entry_point"])
        if isinstance(work, list):
            ahead = [proxy.encode_call(tuple(args), dict(kwargs)) for args, kwargs, _ in work]
            program.send(load, *ahead)
            return grading.run_calls(work, proxy.Session(program, depth, len(ahead)), stop)
        program.send(load, *work.ahead)
        session = proxy.Session(program, depth, len(work.ahead), work.class_under_test, work.watches_arguments)
        return grading.run_test(work, request["entry_point"], session, stop)

    # Why a worker per case: input/output problems of contests expect a fresh process for each case, and what one case
    # leaves behind (files, threads, globals) must not help or harm the next. A program that is slow on several cases
    # is given up, and cases that were not tried count as failed: ten cases, wrong at the third -> 2 of 10.
    def _judge_cases(self, request: dict[str, Any]) -> dict[str, Any]:
        """Each case runs separately, in a fresh worker. After too many time-outs the remaining cases are skipped."""
        verdicts: list[dict[str, Any]] = []
        results: list[bool] = []
        num_slow = 0
        largest = max(len(stdin.encode("utf-8", "surrogatepass")) for stdin, _ in request["cases"])
        if largest > min(self.limits["file_bytes"], self.limits["disk_bytes"]):
            raise JobError(f"an input of {largest} bytes exceeds Limits.file_bytes or disk_bytes")
        for stdin, expected in request["cases"]:
            executor, program = self._open_program()
            try:
                program.send(worker.script_frame(request["source"], stdin))
                end = _end_of_script(program)
            finally:
                remains = program.close()
            score = self._case_score(request, expected, end, remains)
            verdicts.append(self._verdict(score, remains, executor))
            results.append(verdicts[-1]["outcome"] == Outcome.PASSED.value)
            num_slow += verdicts[-1]["outcome"] in _SLOW
            if num_slow >= _MOST_SLOW_CASES or (request["stop_at_failure"] and not results[-1]):
                break
        results += [False] * (len(request["cases"]) - len(results))
        decisive = next((verdict for verdict in verdicts if verdict["outcome"] != Outcome.PASSED.value), verdicts[-1])
        times = {name: sum(verdict[name] for verdict in verdicts) for name in ("cpu_seconds", "wall_seconds")}
        return {**decisive, **times, **_counted(results)}

    def _case_score(
        self, request: dict[str, Any], expected: str, end: ProgramEnded | None, remains: Remains
    ) -> grading.Score:
        left = end is not None and end.outcome is None and remains.end.status == 0  # by os._exit(0), say
        if end is not None and not left:
            return grading.Score(end.outcome or Outcome.CRASHED, (False,), end.detail, end)
        if len(remains.stdout) >= self.limits["output_bytes"]:
            return grading.Score(Outcome.OUTPUT_LIMIT, (False,), "stdout")
        if matches(remains.stdout, expected, request["comparison"], request["float_tolerance"]):
            return grading.Score(Outcome.PASSED, (True,))
        return grading.Score(Outcome.WRONG_ANSWER, (False,))

    def _verdict(
        self, score: grading.Score, remains: Remains, executor: LocalExecutor | RemoteExecutor
    ) -> dict[str, Any]:
        """The score as a verdict; the kernel's facts say why a program stopped answering. Raises ZygoteLost."""
        outcome, detail = score.outcome, score.detail
        if score.end is not None:
            if not isinstance(score.end, ProgramEnded):
                raise score.end
            outcome = self._outcome_of_end(score.end, remains.end, executor)
            detail = score.end.detail or _describe(remains.end.status)
        return {
            "outcome": outcome.value,
            **_counted(score.results),
            "cpu_seconds": remains.end.cpu_seconds,
            "wall_seconds": remains.wall_seconds,
            "exit_status": None if score.end is None else _exit_status(remains.end.status),
            "stdout": remains.stdout,
            "stderr": remains.stderr,
            "detail": detail.encode("utf-8", "replace").decode(),  # the program's words may not be valid Unicode
        }

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


def _end_of_script(program: Program | RemoteProgram) -> ProgramEnded | None:
    """How a script ended, None if it ran to its end."""
    try:
        tag, body = program.receive()
    except ProgramEnded as end:
        return end
    if tag == replies.FINISHED:
        return None
    if tag != replies.RAISED:
        return proxy.how_it_failed(tag, body)
    return ProgramEnded(Outcome.EXCEPTION, proxy.message_in(body))


def _counted(results: Sequence[bool]) -> dict[str, Any]:
    marks = "".join("01"[passed] for passed in results)
    return {"tests_passed": sum(results), "tests_total": len(results), "results": marks}


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
