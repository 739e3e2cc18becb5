"""Twenty PPO steps at a fixed seed, pinned: a refactor keeps these numbers.

A change of numerics records them anew with `python -m tests.test_golden` and says why in its commit.
"""

import json
from pathlib import Path

import pytest
import torch

from rl_distill import pipeline
from rl_distill.reporting import read_jsonl, write_atomically
from tests.world import make_trainer

PINNED = Path(__file__).parent / "golden" / "ppo_20_steps.json"
SERIES = ("reward", "kl", "loss", "entropy", "loss/value", "grad_norm", "completions/mean_length")


def trajectory(folder: Path) -> dict[str, list[float]]:
    """Twenty PPO steps of the tests' small world in one thread: each series has one number per step."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trainer = make_trainer(folder, ppo__num_steps=20)
        pipeline.train(trainer.config, trainer)
    finally:
        torch.set_num_threads(threads)
    records = [record for record in read_jsonl(folder / "metrics.jsonl") if "loss" in record]
    return {name: [record[name] for record in records] for name in SERIES}


def test_twenty_steps_follow_the_pinned_trajectory(tmp_path):
    pinned, found = json.loads(PINNED.read_text()), trajectory(tmp_path)
    assert list(found) == list(pinned)
    for name, values in pinned.items():
        assert len(values) == 20
        assert found[name] == pytest.approx(values, rel=1e-4, abs=2e-6), name


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_atomically(PINNED, json.dumps(trajectory(Path(folder)), indent=1) + "\n")
