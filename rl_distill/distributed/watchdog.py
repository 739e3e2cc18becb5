"""A thread in every process that ends the whole launch, with one message, when a process dies, hangs or fails.

Each process leaves a sign of life in the launch's store and looks after the next rank. Who finds trouble first writes
the verdict, prints it, and everybody leaves. A process hangs when others wait for it in a collective longer than the
limit; long work that nobody waits for is no failure.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, NoReturn

import psutil
import torch.distributed as dist

from .process_groups import Launch

WAITING_PLACES = (
    "torch/distributed/",
    "deepspeed/comm/",
    "torch/autograd/graph.py",
    "rl_distill/distributed/teacher_link.py",
)
"""Files whose frame, innermost in the main thread, means that this process may be waiting for others."""
IDLE_PLACE = ("rl_distill/distributed/teacher_link.py", "requests")
"""Where a teacher's process waits for work, which is no sign of trouble."""
FAILURE = "watchdog/failure"
ELSEWHERE = "in another process"
"""In an error that only follows from that of another process."""
ENDING = "Every process ends; go on with --resume_from_checkpoint latest"


class Waiting:
    """Since when the main thread has stood at one place in which processes wait for each other."""

    def __init__(self) -> None:
        self.place: tuple[int, int] | None = None
        self.since = time.monotonic()

    def look(self) -> tuple[float, str]:
        """(seconds it has waited, 0 while it works or idles; where the main thread is)."""
        frame: FrameType | None = sys._current_frames().get(threading.main_thread().ident or 0)
        if frame is None:
            return 0.0, "its end"
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        place = (id(frame), frame.f_lasti)
        waits = any(part in file for part in WAITING_PLACES) and not (
            file.endswith(IDLE_PLACE[0]) and name == IDLE_PLACE[1]
        )
        if not waits or place != self.place:
            self.place, self.since = (place if waits else None), time.monotonic()
        return time.monotonic() - self.since if waits else 0.0, _where(frame)


def _where(frame: FrameType) -> str:
    """The innermost three places of the main thread, the outermost first, such as `rollout.py:120 collect`."""
    stack = traceback.extract_stack(frame)[-3:]
    return " > ".join(f"{os.path.basename(entry.filename)}:{entry.lineno} {entry.name}" for entry in stack)


class Watchdog:
    """Started once per process; ends with it. `timeout_s`: how long a process may be silent or keep others waiting."""

    def __init__(self, launch: Launch, timeout_s: float) -> None:
        self.launch, self.timeout_s = launch, timeout_s
        self.interval_s = min(1.0, timeout_s / 8)
        self.store: dist.Store = launch.store.clone()  # type: ignore[attr-defined]  # a connection of this thread's own
        self.waiting = Waiting()
        self.ending = threading.Event()
        self.state = "running"
        self.num_excuses, self.lock = 0, threading.Lock()
        self.speaking = threading.RLock()
        """Held while the verdict is written and printed, so that no other thread ends the process meanwhile."""
        self.ward = (launch.rank + 1) % launch.size
        self.ward_sign: dict[str, Any] | None = None
        self.ward_seen = time.monotonic()
        self.host = socket.gethostname()
        self.num_beats = 0
        self.terminated_at: float | None = None
        self.thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        sys.excepthook = self._uncaught
        signal.signal(signal.SIGTERM, self._terminate)
        atexit.register(self._finish)
        self._beat()  # who dies right after its start has said which process it is
        self.thread.start()

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        """A launcher sends SIGTERM to all when one dies: time enough to say which one it was."""
        self.terminated_at = time.monotonic()

    def _run(self) -> None:
        try:
            while not self.ending.wait(self.interval_s):
                self._beat()
                if self.store.check([FAILURE]):
                    self._leave(json.loads(self.store.get(FAILURE))[2])
                self._look_after_ward()
                self._look_at_myself()
                if self.terminated_at is not None and time.monotonic() - self.terminated_at > 3 * self.interval_s:
                    self._leave(128 + signal.SIGTERM)
        except (dist.DistNetworkError, dist.DistStoreError) as error:
            if not self.ending.is_set():
                self._without_store(error)

    def _beat(self) -> None:
        self.num_beats += 1
        waited_s, where = self.waiting.look()
        sign = {
            "beat": self.num_beats,
            "pid": os.getpid(),
            "host": self.host,
            "state": "excused" if self.num_excuses else self.state,
        }
        self.store.set(f"watch/{self.launch.rank}", json.dumps(sign | {"waited_s": waited_s, "where": where}))

    def _sign(self, rank: int) -> dict[str, Any] | None:
        key = f"watch/{rank}"
        return json.loads(self.store.get(key)) if self.store.check([key]) else None

    def _look_after_ward(self) -> None:
        if self.ward_died():
            self.ward_sign = self._sign(self.ward)  # it may have said that it is done
        if self.ward_died():
            self.declare(f"{self.launch.name(self.ward)} died (its process on {self.host} is gone)")
        sign = self._sign(self.ward)
        if sign is None or self.ward_sign is None or sign["beat"] != self.ward_sign["beat"]:
            self.ward_sign, self.ward_seen = sign, time.monotonic()
        silent_s = time.monotonic() - self.ward_seen
        if sign is not None and sign["state"] != "done" and silent_s > self.timeout_s:
            if sign["host"] == self.host:
                os.kill(sign["pid"], signal.SIGKILL)  # stopped or stuck: it would not leave by itself
            last = f"last at {sign['where']}"
            self.declare(f"{self.launch.name(self.ward)} gave no sign of life for {silent_s:.0f} s; {last}")

    def _look_at_myself(self) -> None:
        """Where this process has waited too long: who is not waiting is who it waits for."""
        waited_s, where = self.waiting.look()
        if waited_s < self.timeout_s:
            return
        signs = {rank: self._sign(rank) for rank in range(self.launch.size)}
        if any(sign is not None and sign["state"] == "excused" for sign in signs.values()):
            self.waiting.place = None  # counts anew
            return
        late = [
            f"{self.launch.name(rank)} at {sign['where']}"
            for rank, sign in signs.items()
            if sign is not None
            and sign["state"] == "running"
            and sign["waited_s"] < self.timeout_s / 2
            and not sign["where"].endswith(IDLE_PLACE[1])
        ]
        cause = "; ".join(late) if late else "nobody: all wait, in collectives that do not match"
        waiter = f"{self.launch.name(self.launch.rank)} has waited {waited_s:.0f} s at {where}"
        self.declare(f"{cause} kept the others waiting: {waiter} (distributed.timeout_s: {self.timeout_s:g})")

    @contextlib.contextmanager
    def excused(self) -> Iterator[None]:
        """While this process waits for something outside of the launch, nobody is to blame for waiting."""
        self._excuse(1)
        try:
            yield
        finally:
            self._excuse(-1)

    def _excuse(self, change: int) -> None:
        with self.lock:
            self.num_excuses += change

    def declare(self, message: str) -> None:
        """Ends the launch: the first message is printed, and every process leaves."""
        self._try_to_print(message)
        self._leave(1)

    def end_by_error(self, message: str, status: int) -> NoReturn:
        """Ends the launch with the words of an error that explains itself, unless another was faster."""
        if ELSEWHERE in message or status == 1:
            time.sleep(3 * self.interval_s)  # the watch thread leaves here once the other process has spoken
        with self.speaking:
            mine = json.dumps([self.launch.rank, message, status])
            if self.store.compare_set(FAILURE, "", mine).decode() == mine:
                print(message, file=sys.__stderr__, flush=True)
        time.sleep(3 * self.interval_s)  # the others leave by themselves; a launcher kills them when the first is gone
        self._leave(status)

    def _try_to_print(self, message: str) -> bool:
        """Prints the message if it is the first of the launch."""
        with self.speaking:
            mine = json.dumps([self.launch.rank, message, 1])
            first = self.store.compare_set(FAILURE, "", mine).decode() == mine
            if first:
                print(f"\n[{self.launch.name(self.launch.rank)}] {message}. {ENDING}", file=sys.__stderr__, flush=True)
            return first

    def _leave(self, code: int) -> NoReturn:
        with self.speaking:
            os._exit(code)

    def _uncaught(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """An error of this process ends all; one that only follows from another's end is not worth a second message."""
        deadline = time.monotonic() + 3 * self.interval_s
        while isinstance(error, RuntimeError) and time.monotonic() < deadline:
            time.sleep(self.interval_s / 4)  # the watch thread leaves here once somebody's verdict is there
        with self.speaking:
            if self._try_to_print(f"{self.launch.name(self.launch.rank)} failed: {kind.__name__}: {error}"):
                traceback.print_exception(
                    kind, error, trace, file=sys.__stderr__
                )  # torch keeps sys.stderr to itself here
        self._leave(1)

    def _without_store(self, error: Exception) -> None:
        """The launcher, or the process that hosts the store, is gone, and no verdict can be shared."""
        message = f"rank 0 or the launcher is gone ({str(error).splitlines()[0]})"
        if self.ward_died():
            message = f"{self.launch.name(self.ward)} died"
        print(f"\n[{self.launch.name(self.launch.rank)}] {message}. {ENDING}", file=sys.__stderr__, flush=True)
        self._leave(1)

    def ward_died(self) -> bool:
        """True where the next rank was on this machine and its process is gone, but not because its work was done."""
        sign = self.ward_sign
        return sign is not None and sign["state"] != "done" and sign["host"] == self.host and not _alive(sign["pid"])

    def _finish(self) -> None:
        """At the end of a process that did its work. Rank 0 leaves last, as it may host the store."""
        self.state = "done"
        self._beat()
        num_done = self.store.add("watch/done", 1)
        deadline = time.monotonic() + self.timeout_s
        while self.launch.rank == 0 and num_done < self.launch.size and time.monotonic() < deadline:
            time.sleep(self.interval_s / 4)
            num_done = self.store.add("watch/done", 0)
        self.ending.set()
        self.thread.join()  # a thread that is talking to the store when the interpreter ends would abort the process
        if dist.is_initialized():
            dist.destroy_process_group()  # left to the interpreter's end, its threads now and then abort the process


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
