"""A backend on another machine: a service that speaks SandboxFusion's HTTP `/run_code`, behind the same judge.

Every request sends the program, the worker's code and all calls so far; the answers come back as data on stdout and are
compared here. Exit codes never mean success. An unreachable or failing service is ZygoteLost, never a verdict.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import os
import signal
import time
import urllib.request
from typing import Any

from sandboxes.contract import Outcome
from sandboxes.program import ProgramEnded, Remains, WorkerExit
from sandboxes.spawn import ZygoteLost

_GRACE_SECONDS = 30.0  # for the service's own work, beyond the program's wall limit
_OUTPUT_CUT_BYTES = 1 << 20  # SandboxFusion keeps this much of stdout

# What the service runs. The program's own stdout goes to stderr, so that stdout holds answers: one line each.
_SCRIPT = """
import base64, os, sys, types
sys.modules["sandboxes"] = package = types.ModuleType("sandboxes")
for name, text in {sources!r}.items():
    module = types.ModuleType("sandboxes." + name)
    sys.modules["sandboxes." + name] = module
    setattr(package, name, module)
    exec(compile(text, name, "exec"), module.__dict__)
answers = os.dup(1)
os.dup2(2, 1)
def send(tag, body):
    line = tag + base64.b64encode(body) + b"\\n"
    while line:
        line = line[os.write(answers, line):]
frames = [base64.b64decode(frame) for frame in {frames!r}]
package.worker.answer(iter(frames), send, {result_bytes}, {result_depth})
sys.stdout.flush()
os._exit(0)
"""


class RemoteExecutor:
    """The service at `url`. It keeps nothing of ours between requests, so there is nothing to start or to end."""

    tier, usable = "remote", True
    lacks = ("limits of our own on CPU time, processes and files",)

    def __init__(self, url: str):
        self.url = url.rstrip("/") + "/run_code"

    def open_program(self, limits: dict[str, Any]) -> RemoteProgram:
        """One program."""
        return RemoteProgram(self.url, limits)

    def test_seconds(self, limits: dict[str, Any]) -> float:
        """0: a slow service must not look like a slow program. The trainer's patience ends both."""
        return 0.0

    def serves(self, limits: dict[str, Any]) -> bool:
        """Whether `limits` can be kept here: each request brings its own."""
        return True

    def ran_out_of_memory(self) -> bool:
        """The service does not say."""
        return False

    def close(self) -> None:
        """Nothing is held."""


class RemoteProgram:
    """One program, run anew with all calls so far whenever an answer is wanted that has not come yet.

    A test whose calls are known beforehand costs one request; others one per call. Programs that answer differently
    in every run are judged by their latest answers.
    """

    def __init__(self, url: str, limits: dict[str, Any]):
        self.url, self.limits = url, limits
        self.frames: list[bytes] = []
        self.answers: list[tuple[bytes, bytes]] = []
        self.num_received = self.num_frames_run = 0
        self.end = WorkerExit(0, 0.0, True)
        self.printed, self.wall_seconds = "", 0.0
        self.ended = ProgramEnded(None)  # how the latest run ended after its last answer

    def send(self, *bodies: bytes) -> None:
        """Queue frames for the next request."""
        self.frames += bodies

    def receive(self) -> tuple[bytes, bytes]:
        """(tag, body) of the next answer. Raises ProgramEnded, or ZygoteLost if the service failed."""
        if self.num_received >= len(self.answers) and self.num_frames_run < len(self.frames):
            self._run()
        if self.num_received >= len(self.answers):
            raise self.ended
        self.num_received += 1
        return self.answers[self.num_received - 1]

    def close(self) -> Remains:
        """What the latest run left. CPU time is not known."""
        return Remains(self.end, self.wall_seconds, self.printed, "")

    def _run(self) -> None:
        limits = self.limits
        self.num_frames_run = len(self.frames)
        reply = self._post(
            {
                "code": script(self.frames, limits["result_bytes"], limits["result_depth"]),
                "language": "python",
                "run_timeout": limits["wall_seconds"],
                "memory_limit_MB": limits["memory_bytes"] >> 20,
            }
        )
        try:
            self._take(reply["run_result"])
        except (KeyError, TypeError, ValueError) as error:
            raise ZygoteLost(f"the service's reply is not understood: {error!r}") from error

    def _take(self, result: dict[str, Any]) -> None:
        """Split what came back into answers and the way it ended."""
        self.printed = str(result["stderr"] or "")
        self.wall_seconds = float(result["execution_time"] or 0.0)
        out = str(result["stdout"] or "")
        lines = out.split("\n")[:-1]  # the last line is complete only if a line feed follows
        answers, malformed = _answers(lines)
        self.answers = answers
        self.end = WorkerExit(_wait_status(result["return_code"]), 0.0, True)
        if malformed:
            self.ended = ProgramEnded(Outcome.PROTOCOL, "malformed answer")
        elif len(self.printed.encode("utf-8", "replace")) > self.limits["output_bytes"]:
            self.printed = self.printed[: self.limits["output_bytes"]]
            self.ended = ProgramEnded(Outcome.OUTPUT_LIMIT, "stdout and stderr")
        elif len(out) >= _OUTPUT_CUT_BYTES:
            self.ended = ProgramEnded(Outcome.PROTOCOL, "answer too large")
        elif result["status"] == "TimeLimitExceeded":
            self.ended = ProgramEnded(Outcome.TIMEOUT_WALL, "wall clock")
        else:
            self.ended = ProgramEnded(None)

    def _post(self, request: dict[str, Any]) -> dict[str, Any]:
        """The service's reply. Raises ZygoteLost if there is none, or if the service says that it failed."""
        body = json.dumps(request).encode()
        headers = {"Content-Type": "application/json"}
        started = time.monotonic()
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.url, body, headers), timeout=self.limits["wall_seconds"] + _GRACE_SECONDS
            ) as response:
                reply = json.load(response)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ZygoteLost(f"{self.url} after {time.monotonic() - started:.1f} s: {error}") from error
        if not isinstance(reply, dict) or reply.get("status") not in ("Success", "Failed"):
            raise ZygoteLost(f"{self.url} failed: {str(reply)[:500]}")
        return reply


def script(frames: list[bytes], result_bytes: int, result_depth: int) -> str:
    """A program of its own that answers `frames`: the worker's code, the untrusted text as data, and the calls."""
    here = os.path.dirname(os.path.abspath(__file__))
    sources = {}
    for name in ("values", "codec", "replies", "script", "operations", "worker"):
        with open(os.path.join(here, name + ".py")) as file:
            sources[name] = file.read()
    encoded = [base64.b64encode(frame).decode() for frame in frames]
    return _SCRIPT.format(sources=sources, frames=encoded, result_bytes=result_bytes, result_depth=result_depth)


def _answers(lines: list[str]) -> tuple[list[tuple[bytes, bytes]], bool]:
    """(tag, body) of every line up to the first malformed one, and whether there was one."""
    answers = []
    for line in lines:
        try:
            answers.append((line[:1].encode("ascii"), base64.b64decode(line[1:], validate=True)))
        except (UnicodeEncodeError, binascii.Error, ValueError):
            return answers, True
    return answers, False


def _wait_status(return_code: int | None) -> int:
    """As wait(2) would report it: shells say 128 + n for signal n, Python says -n; None means killed."""
    if return_code is None:
        return signal.SIGKILL
    number = -return_code if return_code < 0 else return_code - 128 if 128 < return_code < 160 else 0
    return number or return_code << 8
