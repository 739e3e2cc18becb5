"""Two process groups and a link: before Accelerate starts, the last ranks of a launch become a separate world.

Each side then has its own ranks, its own default process group and its own engines, so Trainer and DeepSpeed run
unmodified on both. A store that every process of the launch reaches stays; the link and the watch go through it.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from ..errors import LaunchError


@dataclass(frozen=True)
class Launch:
    """Who this process is in the whole launch: ranks 0 to num_students - 1 train, the others serve the teacher."""

    rank: int
    num_students: int
    num_teachers: int
    store: dist.Store

    @property
    def size(self) -> int:
        return self.num_students + self.num_teachers

    @property
    def is_teacher(self) -> bool:
        return self.rank >= self.num_students

    @property
    def teacher_ranks(self) -> range:
        return range(self.num_students, self.size)

    def name(self, rank: int) -> str:
        """For messages: "rank 3 (teacher 1)"."""
        if not self.num_teachers:
            return f"rank {rank}"
        side, index = ("teacher", rank - self.num_students) if rank >= self.num_students else ("student", rank)
        return f"rank {rank} ({side} {index})"


def join(timeout_s: float) -> tuple[dist.Store, int, int]:
    """(a store common to the launch, this process's rank, the number of processes); by itself a process is a launch."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return dist.HashStore(), 0, 1
    store, rank, size = next(dist.rendezvous("env://", timeout=timedelta(seconds=timeout_s)))
    return dist.PrefixStore("rl_distill", store), rank, size


def divide(num_teachers: int, timeout_s: float) -> Launch:
    """Joins the launch and, with teachers, moves this process into its group by rewriting the environment.

    Why the environment: Accelerate, DeepSpeed and Trainer read RANK and WORLD_SIZE from it and take every process they
    find for one that trains. Each group therefore sees a launch that is its own and rendezvous at an address that its
    first rank publishes in the common store. Example: 6 processes with 2 teachers: launch ranks 0-3 become RANK 0-3 of
    WORLD_SIZE 4, launch ranks 4 and 5 become RANK 0 and 1 of WORLD_SIZE 2.
    LOCAL_RANK and LOCAL_WORLD_SIZE stay the launcher's: they name the GPU and the processes that share the machine.
    Raises RuntimeError where no student would be left.
    """
    store, rank, size = join(timeout_s)
    if size <= num_teachers:
        raise LaunchError(
            f"teacher.placement: dedicated with teacher.num_processes: {num_teachers} needs {num_teachers + 1} or more "
            f"processes, and {size} {'was' if size == 1 else 'were'} launched: add --num_processes {num_teachers + 1}"
        )
    launch = Launch(rank, size - num_teachers, num_teachers, store)
    if num_teachers:
        _move_to_side(launch)
    return launch


def _move_to_side(launch: Launch) -> None:
    side, first = ("teacher", launch.num_students) if launch.is_teacher else ("student", 0)
    if launch.rank == first:
        launch.store.set(f"address/{side}", _free_address())
    host, port = launch.store.get(f"address/{side}").decode().rsplit(":", 1)
    os.environ.update(
        RANK=str(launch.rank - first),
        WORLD_SIZE=str(launch.num_teachers if launch.is_teacher else launch.num_students),
        MASTER_ADDR=host,
        MASTER_PORT=port,
    )
    os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)  # the side's first rank hosts its store, not the launcher


def _free_address() -> str:
    """host:port of this machine as the others see it, with a port that is free now."""
    master = os.environ["MASTER_ADDR"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((master, 9))  # sends nothing: only asks which of our addresses leads there
        host = probe.getsockname()[0]
    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"{host}:{probe.getsockname()[1]}"
