"""Real runs of launch/ppo.py under `accelerate launch`, several processes over gloo, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests import killable

OPTIONS = {"ppo__num_steps": 4, "checkpoint__every_steps": 2, "teacher__autocast": "off"}
LAUNCH_FILES = killable.ROOT / "configs" / "accelerate"


def start(launch_file: str, num_processes: int, output_dir: Path, **settings: Any) -> subprocess.Popen[str]:
    """The launcher of a run that has begun, in a process group of its own; both outputs go to `output_dir`.log."""
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(LAUNCH_FILES / f"{launch_file}.yaml"), "--num_processes", str(num_processes)]
    command += ["--main_process_port", "0", "launch/ppo.py"]
    command += killable.arguments(output_dir, **OPTIONS | settings)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with output_dir.with_suffix(".log").open("a") as log:
        return subprocess.Popen(
            command, cwd=killable.ROOT, env=environment, stdout=log, stderr=log, text=True, start_new_session=True
        )


def finish(launch_file: str, num_processes: int, output_dir: Path, **settings: Any) -> str:
    """What a run printed; raises AssertionError with the end of that where the run fails."""
    code = start(launch_file, num_processes, output_dir, **settings).wait(900)
    printed = output_dir.with_suffix(".log").read_text()
    assert code == 0, printed[-3000:]
    return printed
