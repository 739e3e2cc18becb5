"""This machine as a run would find it: memory, cores, and how fast its CPUs multiply matrices in float32 and bf16.

Measures for a second or two, on as many threads as a run would use. The seconds of a PPO step are those of its
arithmetic at the measured speed, all answers at full length: a real step takes longer, most of all where it decodes.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import torch

from .. import distributed
from ..config import RunConfig
from ..models.loading import load_config_of
from ..startup.findings import Finding
from . import memory

SIZE, SECONDS = 1024, 0.4
"""Of the matrices that are multiplied, and for how long."""
WORTH_IT = 1.5
"""bf16 is advised where it is so many times as fast as float32."""


@dataclass(frozen=True)
class Machine:
    """`flops` and `bf16_flops`: additions and multiplications per second on `threads` threads."""

    cores: int
    threads: int
    memory: float
    available: float
    flops: float
    bf16_flops: float


def machine_findings(student: str, teacher: str, plan: memory.Plan, run: RunConfig | None) -> list[Finding]:
    """Of a machine that trains on its CPUs; nothing where there is a GPU."""
    if torch.cuda.is_available():
        return []
    machine = measure(None if run is None else run.num_threads)
    shapes = memory.Shape.of(load_config_of(student)), memory.Shape.of(load_config_of(teacher))
    return [speed_finding(machine, *shapes, plan, run), memory_finding(machine, *shapes, plan)]


def measure(num_threads: int | None = None) -> Machine:
    threads = distributed.set_threads(num_threads)
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0))
    speeds = (matmul_flops(dtype) for dtype in (torch.float32, torch.bfloat16))
    return Machine(cores, threads, float(page * pages), available_memory(float(page * pages)), *speeds)


def available_memory(default: float) -> float:
    """Bytes that programs can still have, by the kernel; `default` where it does not say."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return float(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return default


@torch.inference_mode()
def matmul_flops(dtype: torch.dtype) -> float:
    """2 n^3 per product over the time of the fastest: what others do meanwhile only slows some of them."""
    a, b = torch.randn(2, SIZE, SIZE).to(dtype)
    torch.mm(a, b)
    fastest, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        begun = time.perf_counter()
        torch.mm(a, b)
        fastest = min(fastest, time.perf_counter() - begun)
    return 2 * SIZE**3 / fastest


def step_flops(student: memory.Shape, teacher: memory.Shape, plan: memory.Plan, run: RunConfig) -> float:
    """Of one PPO step: 2 per parameter and token for a forward, 6 with its backward (Kaplan et al. 2020, section 2.1).

    Sampling and the statistics of the old policy are a forward each, every epoch a forward with its backward.
    """
    tokens = run.ppo.batch_size * (plan.prompt_length + plan.completion_length)
    local = 0 if plan.placement != "colocated" else teacher.parameters
    return tokens * (student.parameters * (4 + 6 * run.ppo.num_epochs) + 2 * local)


def speed_finding(
    machine: Machine, student: memory.Shape, teacher: memory.Shape, plan: memory.Plan, run: RunConfig | None
) -> Finding:
    threads = f"{machine.threads} thread{'s' if machine.threads > 1 else ''}"
    words = (
        f"no GPU; {machine.cores} CPU cores, on {threads} {machine.flops / 1e9:.0f} GFLOP/s in float32 and "
        f"{machine.bf16_flops / 1e9:.0f} in bf16"
    )
    is_faster, do = machine.bf16_flops > WORTH_IT * machine.flops, ""
    if run is not None:
        speed = machine.bf16_flops if run.ppo.bf16 else machine.flops
        seconds = step_flops(student, teacher, plan, run) / speed
        words += f"; {seconds:.3g} s of arithmetic in a step of {run.ppo.batch_size} full-length completions"
        do = "ppo.bf16: true is faster here" if is_faster and not run.ppo.bf16 else ""
    return Finding("ok", "this machine", words, do)


def memory_finding(machine: Machine, student: memory.Shape, teacher: memory.Shape, plan: memory.Plan) -> Finding:
    """Whether the run fits into what is free; of a GPU's estimate only the context is not needed here."""
    needed = memory.student_gpu(student, teacher, plan)["peak"] - memory.FRAGMENTATION * memory.CONTEXT_BYTES
    words = f"about {needed / memory.GIB:.1f} GiB, {machine.available / memory.GIB:.1f} of "
    words += f"{machine.memory / memory.GIB:.1f} GiB are free"
    do = memory.advice(needed, machine.available, plan)
    return Finding("bad" if do else "ok", "memory on this machine", words, do)
