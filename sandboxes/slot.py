"""The trainer's end of one slot: starts a judge process, hands it requests, ends it.

Used by one thread at a time. Never runs a program's or a test's text.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
from typing import Any

from sandboxes import framing, host
from sandboxes.contract import Limits, SandboxError
from sandboxes.spawn import python_command

_START_SECONDS = 150.0  # a plain slot takes 0.3 s, one in a container up to two minutes
_GRACE_SECONDS = 30.0  # beyond a job's own limits, before a silent judge is replaced

_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""glibc: memory of large answers goes back to the system at once, instead of staying with the judge."""
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # of the packages that tests import
# For bwrap, docker and podman to be found and to find their own, and for a service behind a proxy.
_PASSED_ON = ("PATH", "HOME", "XDG_RUNTIME_DIR", "DOCKER_HOST", "CONTAINER_HOST", "SSL_CERT_FILE", "HTTPS_PROXY")


class SlotLost(Exception):
    """The judge of a slot died or fell silent."""


class JudgeOverran(Exception):
    """The judge used up its own CPU time on the program's answers. The slot is lost, but not by its own fault."""


class Slot:
    """One judge process. Raises SandboxError if it does not start."""

    def __init__(self, config: dict[str, Any]):
        ours, theirs = socket.socketpair()
        command = [*python_command(), "judge", str(theirs.fileno()), json.dumps(config)]
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        self.process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            # TMPDIR: where both sides look for scratch directories
            env={**passed_on, **_GIVE_BACK, **_ONE_THREAD, "TMPDIR": tempfile.gettempdir()},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self.link = ours
        framing.set_patience(self.link, _START_SECONDS)
        try:
            hello = framing.receive(self.link)
        except (framing.Closed, TimeoutError) as error:
            self.close()
            raise SandboxError(f"the judge did not start: {error!r}") from error
        if "failed" in hello:
            self.close()
            raise SandboxError(hello["failed"])
        self.lacks: tuple[str, ...] = tuple(hello["lacks"])
        self.limits: Limits | None = None  # those the judge was last told
        self.patience: float = config["patience"]

    def execute(self, request: dict[str, Any], limits: Limits) -> dict[str, Any]:
        """The judge's reply. Raises SlotLost, or JudgeOverran."""
        try:
            if limits != self.limits:
                self.limits = limits
                request = {**request, "limits": limits.as_dict()}
            num_programs = len(request.get("cases", "1"))
            framing.set_patience(self.link, self.patience * limits.wall_seconds * num_programs + _GRACE_SECONDS)
            framing.send(self.link, request)
            return framing.receive(self.link)
        except (framing.Closed, OSError) as error:
            if isinstance(error, framing.Closed) and self._ended_by(signal.SIGXCPU):
                raise JudgeOverran from None
            raise SlotLost(f"the judge was lost: {error!r}") from error

    def _ended_by(self, number: int) -> bool:
        """Whether the judge, which has closed its end, was ended by this signal."""
        try:
            return self.process.wait(1.0) == -number
        except subprocess.TimeoutExpired:
            return False

    def close(self) -> None:
        """End the judge and its zygote. The judge gets a moment to clean up after itself."""
        self.link.close()
        try:
            self.process.wait(10.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.returncode != 0:
            host.reap_session(self.process.pid)
            host.sweep(self.process.pid)
