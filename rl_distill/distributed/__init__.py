"""The only package that knows how many processes there are and what joins them: Accelerate, DeepSpeed, FSDP, torch.

Functions work unchanged in one process. Gathered lists come back in rank order on every process.
    zero.py            DeepSpeed: whole weights of a sharded model
    fsdp.py            the same for FSDP2
    process_groups.py  a launch divided into the student group and the teacher group
    teacher_link.py    requests and tensors between the two
    watchdog.py        ends all processes, with one message, when one dies, hangs or fails
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import LaunchError
from . import fsdp, zero
from .fsdp import compute_in_bf16, is_fsdp, shard_on_cpu, whole_number
from .process_groups import Launch, divide
from .teacher_link import PendingTransfer, TeacherLink
from .watchdog import Watchdog
from .zero import is_deepspeed, shard, zero_stage

__all__ = [
    "Launch",
    "PendingTransfer",
    "TeacherLink",
    "compute_in_bf16",
    "is_deepspeed",
    "is_fsdp",
    "shard",
    "shard_on_cpu",
    "whole_number",
    "zero_stage",
]

Item = TypeVar("Item")
MAX_GROUPS = 8
_WATCHDOGS: list[Watchdog] = []


def is_watched() -> bool:
    """True where a watch will end every process of the launch together."""
    return bool(_WATCHDOGS)


def end_launch(message: str, status: int) -> None:
    """Ends every process of a watched launch with this status; one of them says why."""
    _WATCHDOGS[-1].end_by_error(message, status)


def excused() -> contextlib.AbstractContextManager[None]:
    """Inside, this process waits for something outside of the launch, and the watch lets everybody wait."""
    return _WATCHDOGS[-1].excused() if _WATCHDOGS else contextlib.nullcontext()


def start(num_teachers: int = 0, timeout_s: float = 1800.0) -> Launch:
    """Joins the processes the launcher started: NCCL between GPUs, gloo on CPU. In a single process it does nothing.

    A watch ends all of them where one dies, fails, or keeps the others waiting for `timeout_s`.
    The last `num_teachers` of them serve the teacher: for those, and for the others, the world is their own side.
    To be called before anything asks for the world's size. Raises RuntimeError where the processes did not find each
    other (every one of them would train alone, on the whole batch, and write the same files), or where `accelerate
    launch --cpu --num_processes N` was asked for N processes and without MPI quietly started one.
    """
    on_cpu = not torch.cuda.is_available()
    if is_deepspeed():
        zero.prepare_environment(on_cpu)
    if is_fsdp():
        fsdp.check_environment()
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_ADDR" in os.environ and _launched() == 1:
        raise LaunchError(
            "accelerate launch was asked for several processes on CPU and started one, because --cpu needs MPI for "
            "that; with --multi_gpu instead of --cpu it starts all of them (no GPU needed, they talk over gloo)"
        )
    launch = divide(num_teachers, timeout_s)
    if launch.size > 1:
        _WATCHDOGS.append(Watchdog(launch, timeout_s))
        _WATCHDOGS[-1].start()
    if launch.is_teacher or (_launched() == 1 and not is_deepspeed() and not is_fsdp()):
        return launch  # the teacher's ranks need no group of their own: each answers for its share
    from accelerate import PartialState

    limit = timedelta(seconds=timeout_s + 60)  # the watch speaks first: it knows who is late
    if on_cpu and is_deepspeed():  # with cpu=True Accelerate would leave DeepSpeed out
        state = PartialState(backend="gloo", timeout=limit)
    else:
        state = PartialState(cpu=on_cpu, timeout=limit)
    check_world(state.num_processes)
    return launch


@contextlib.contextmanager
def without_sharding() -> Iterator[None]:
    """A Trainer made inside is one of plain DDP: supervised stages of tiny models need no sharding."""
    before = {name: os.environ[name] for name in (zero.USE_DEEPSPEED, fsdp.USE_FSDP) if name in os.environ}
    os.environ.update(dict.fromkeys(before, "false"))
    try:
        yield
    finally:
        os.environ.update(before)


def gathered_weights(engine: Any, accelerator: Any) -> contextlib.AbstractContextManager[Any]:
    """Inside, every process holds all weights of the policy (ZeRO-3 and FSDP gather them) and may run it alone.

    Nothing written to the weights stays after it where they are sharded.
    """
    return fsdp.whole_policy(engine) if is_fsdp() else zero.gathered_weights(engine, accelerator)


def load_weights(model: Any, weights: dict[str, Tensor]) -> list[str]:
    """Puts whole weights into a model, sharded or not, on all processes at once; returns the names it does not know.

    Parameters that `weights` leaves out stay as they are.
    """
    if is_fsdp():
        return fsdp.load_shards(model, weights)
    with zero.writable_weights(model):
        return list(model.load_state_dict(weights, strict=False).unexpected_keys)


def join_side(timeout_s: float) -> None:
    """Makes the teacher's processes a process group, which they need where they hold a model together."""
    if world_size() == 1 and _launched() > 1:
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s + 60))


def check_world(num_processes: int) -> None:
    """Raises RuntimeError where Accelerate's or torch's number of processes is not the launcher's WORLD_SIZE."""
    if not _launched() == num_processes == world_size():
        raise LaunchError(
            f"{_launched()} processes were launched, but Accelerate sees {num_processes} and torch {world_size()}; "
            "launch with `accelerate launch --multi_gpu --num_processes N`, with or without GPUs"
        )


def _launched() -> int:
    """How many processes the launcher says there are: torchrun's count, or that of an MPI."""
    names = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
    return max(int(os.environ.get(name, "1")) for name in names)


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_main() -> bool:
    return rank() == 0


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of a small tensor over all processes (a new tensor)."""
    if world_size() == 1:
        return x
    total = x.clone() if dist.get_backend() == "gloo" else x.to(device(), copy=True)
    dist.all_reduce(total)
    return total.to(x.device)


def any_process(flag: bool) -> bool:
    """True on every process where it is on at least one."""
    return bool(sum_over_processes(torch.tensor(float(flag))) > 0)


def gather_list(items: Sequence[Any]) -> list[Any]:
    """The lists of all processes joined in rank order, on every process."""
    if world_size() == 1:
        return list(items)
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, list(items))
    return [item for part in parts for item in part]


def from_main(value: Any) -> Any:
    """The main process's value, on every process."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def device() -> torch.device:
    """This process's accelerator, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def on_one_device(arguments: Any) -> Any:
    """The TrainingArguments, for this process's one GPU.

    Where a process sees several, Trainer would wrap the model in DataParallel, which scatters rows and their flat token
    tensors apart. GPUs left idle are told with the command that uses them.
    """
    if arguments.n_gpu > 1:
        if os.environ.get("LOCAL_WORLD_SIZE", "1") == "1":
            warnings.warn(
                f"this process uses one of {arguments.n_gpu} GPUs; to use all, start the same program by `accelerate "
                f"launch --multi_gpu --num_processes {arguments.n_gpu}`, or hide the others: CUDA_VISIBLE_DEVICES=0",
                stacklevel=2,
            )
        arguments._n_gpu = 1  # as Trainer itself does for models that are spread over GPUs
    return arguments


def barrier() -> None:
    if world_size() > 1:
        dist.barrier()


def share(num_rows: int, of_rank: int) -> range:
    """The contiguous share of `num_rows` rows that a process has; sizes differ by one at most."""
    return range(of_rank * num_rows // world_size(), (of_rank + 1) * num_rows // world_size())


def my_rows(num_rows: int) -> range:
    """This process's share of `num_rows` rows."""
    return share(num_rows, rank())


def in_step(items: Sequence[Item]) -> list[Item]:
    """The items, the last one repeated until every process has as many; each needs one at least."""
    if world_size() == 1:
        return list(items)
    most = torch.tensor(len(items), device=device() if dist.get_backend() == "nccl" else None)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return [*items, *[items[-1]] * (int(most) - len(items))]


def group_count(rows_per_minibatch: int) -> int:
    """In how many contiguous lanes a batch is shuffled, each minibatch taking the same number of rows from every lane.

    It does not depend on the number of processes, so all numbers of them train on the same minibatches; one that
    divides it gives every process the same number of rows.
    """
    return math.gcd(rows_per_minibatch, MAX_GROUPS)


def choose_threads(wanted: int | None) -> int:
    """Torch threads on a CPU machine: the wanted number, else the free cores shared by the processes of this machine.

    Spinning on a core that somebody else uses makes two threads slower than one, so busy cores are left alone: those in
    use during a third of a second, as the load average remembers work that ended minutes ago.
    """
    if wanted is not None:
        return max(1, wanted)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy = round(psutil.cpu_percent(interval=0.3) / 100 * (psutil.cpu_count() or 1))
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, (cores - min(busy, cores - 1)) // processes)


def set_threads(wanted: int | None) -> int:
    """Sets torch's threads (accelerate launch starts programs with one) and returns their number."""
    num_threads = choose_threads(wanted)
    torch.set_num_threads(num_threads)
    return num_threads


def fast_bf16(device: torch.device) -> bool:
    """True where bf16 products are faster than fp32: CUDA since Ampere, CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return (
        device.type == "cpu"
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.cpu._is_avx512_bf16_supported()
    )
