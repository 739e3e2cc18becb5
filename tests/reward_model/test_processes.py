"""launch/reward_model.py in one process and in two, by real `accelerate launch` over gloo."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "reward_model.num_train_prompts": 30,
    "reward_model.num_heldout_prompts": 10,
    "reward_model.num_steps": 4,
    "reward_model.batch_size": 8,
    "demo.teacher_sft.num_steps": 4,
    "demo.student_sft.num_steps": 2,
    "demo.num_teacher_outputs": 20,
    "demo.num_train_prompts": 60,
    "num_threads": 1,
}


def run(folder: Path, launch_file: str, num_processes: int, **settings: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(num_processes)]
    command += ["--config_file", str(ROOT / "configs" / "accelerate" / f"{launch_file}.yaml")]
    command += ["--main_process_port", "0", "launch/reward_model.py", "--output_dir", str(folder)]
    for name, value in (SETTINGS | {"cache_dir": folder.parent / "cache"} | settings).items():
        command += [f"--{name}", str(value)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_two_processes_make_the_data_of_one_and_one_model(tmp_path):
    from reward_models.learned_model import load

    one = run(tmp_path / "one", "one_process", 1)
    assert one.returncode == 0, one.stderr[-2000:]
    data = {path.name: path.read_bytes() for path in (tmp_path / "cache" / "reward_data").iterdir()}
    for name in ("reward_data", "teacher_texts", "student_texts"):
        shutil.rmtree(tmp_path / "cache" / name)
    two = run(tmp_path / "two", "ddp", 2)
    assert two.returncode == 0, two.stderr[-2000:]
    assert {path.name: path.read_bytes() for path in (tmp_path / "cache" / "reward_data").iterdir()} == data
    assert two.stdout.count("report: ") == 1
    assert not (tmp_path / "two" / "work").exists()
    load(tmp_path / "two", "cpu")

    refused = run(tmp_path / "three", "ddp", 2, **{"reward_model.batch_size": 7})
    assert refused.returncode != 0
    assert "7 rows do not divide over 2 processes" in refused.stdout + refused.stderr
