"""Processes for distributed/test_watchdog.py: they add up numbers, or ask a teacher, until one does as it is told."""

import os
import signal
import sys
import time

import torch

from rl_distill import distributed


def stuck() -> None:
    time.sleep(10_000)


def fail() -> None:
    raise ValueError("no such luck")


def make_trouble(kind: str) -> None:
    print(f"trouble at {time.time()}", flush=True)
    TROUBLE[kind]()


TROUBLE = {
    "dies": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stops": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "hangs": stuck,
    "fails": fail,
    "nothing": lambda: None,
}


def main(trouble: str, num_teachers: int, timeout_s: float) -> None:
    launch = distributed.start(num_teachers, timeout_s)
    link = distributed.TeacherLink(launch, torch.device("cpu")) if num_teachers else None
    if link is not None and launch.is_teacher:
        for number, request in enumerate(link.requests()):
            if number == 3:
                make_trouble(trouble)
            link.reply(request["number"], number)
            if number == 5:
                return
    for number in range(6):
        if number == 3 and not num_teachers and launch.rank == launch.size - 1:
            make_trouble(trouble)
        if link is not None:
            link.replies(link.ask("count"), link.launch.teacher_ranks)
        distributed.sum_over_processes(torch.ones(1))
    print(f"rank {launch.rank} is done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
