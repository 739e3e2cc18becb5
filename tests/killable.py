"""A real run through launch/ppo.py in a process of its own, that a test can kill at any moment.

Processes come from a fork server that has the imports behind it, so that each starts in a moment.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.killable_imports"])
ROOT = Path(__file__).parent.parent
SETTINGS = {
    "config": ROOT / "configs" / "quick.yaml",
    "num_threads": 1,
    "report_to": "[]",
    "demo.vocab_size": 320,
    "demo.math_share": 1.0,
    "demo.teacher_math_share": 1.0,
    "demo.num_teacher_problems": 40,
    "demo.num_teacher_outputs": 8,
    "demo.num_train_prompts": 40,
    "demo.num_validation": 3,
    "demo.num_test": 3,
    "demo.teacher": "{hidden_size: 32, intermediate_size: 64, num_layers: 2, num_heads: 4}",
    "demo.student": "{hidden_size: 32, intermediate_size: 64, num_layers: 2, num_heads: 4}",
    "demo.teacher_sft": "{num_steps: 2, batch_size: 4, warmup_steps: 1}",
    "demo.student_sft": "{num_steps: 2, batch_size: 4, warmup_steps: 1}",
    "ppo.num_steps": 8,
    "ppo.batch_size": 8,
    "ppo.num_minibatches": 2,
    "ppo.micro_batch_size": 2,
    "ppo.critic_warmup_steps": 1,
    "generation.max_completion_length": 12,
    "evaluation.every_steps": 2,
    "checkpoint.every_steps": 1,
}


def arguments(output_dir: Path, **settings: Any) -> list[str]:
    """The command line of a run; overrides are written with double underscores for dots."""
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    every = SETTINGS | {"output_dir": output_dir, "cache_dir": output_dir.parent / "cache"} | dotted
    return [word for name, value in every.items() for word in (f"--{name}", str(value))]


def start(output_dir: Path, **settings: Any) -> Any:
    """The process of a run, which has begun. It leads a process group of its own."""
    process = CONTEXT.Process(target=_main, args=(arguments(output_dir, **settings), output_dir), daemon=False)
    process.start()
    return process


def finish(output_dir: Path, **settings: Any) -> None:
    """Runs to the end; raises AssertionError with the end of its log where it fails."""
    process = start(output_dir, **settings)
    process.join(900)
    log = output_dir.with_suffix(".log")
    assert process.exitcode == 0, log.read_text()[-3000:]


def kill(process: Any) -> None:
    """SIGKILL to the process itself; what it started has to notice by itself."""
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)


def _main(words: list[str], output_dir: Path) -> None:
    descriptor = os.open(output_dir.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.chdir(ROOT)
    sys.argv = ["launch/ppo.py", *words]
    from launch.ppo import main

    main()
