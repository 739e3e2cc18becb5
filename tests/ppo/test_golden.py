"""Twenty PPO steps at a fixed seed, pinned: a refactor keeps these numbers.

A change of numerics records them anew with `python -m tests.ppo.test_golden` and says why in its commit.
"""

import json
from pathlib import Path

import pytest
import torch

from rl_distill import pipeline
from rl_distill.config import RunConfig, TinyModelConfig
from rl_distill.demo.tiny import make_model, make_tokenizer
from rl_distill.files import read_jsonl, write_atomically
from rl_distill.ppo.coefficients import SuccessCount
from rl_distill.run_setup import RunContext
from rl_distill.teachers.colocated import make_teacher
from rl_distill.types import Problem, Splits
from tests.tiny_run import make_config

PINNED = Path(__file__).parent / "golden" / "ppo_20_steps.json"
SERIES = ("reward", "kl", "loss", "entropy", "loss/value", "grad_norm", "completions/mean_length")


def golden_context(config: RunConfig) -> RunContext:
    """Sums as problems and tiny random models: nothing here changes when a task does."""
    problems = [
        Problem("math", f"{a}+{b}", f"Tom has {a} pens and finds {b} more.\nA: ", columns={"answer": str(a + b)})
        for a in range(3, 11)
        for b in range(2, 7)
    ]
    tokenizer = make_tokenizer([problem.prompt + problem.columns["answer"] for problem in problems], 288)
    teacher = make_model(TinyModelConfig(48, 64, 2, 4), tokenizer, 1)
    student = make_model(TinyModelConfig(32, 64, 2, 4), tokenizer, 2)
    splits = Splits(cold_start=[], train=problems, validation=problems[:2], test=problems[:2])
    rates = {"math": SuccessCount(20, 40)}
    return RunContext(splits, make_teacher(config, teacher, tokenizer), student, tokenizer, rates, 0)


def trajectory(folder: Path) -> dict[str, list[float]]:
    """Twenty PPO steps of the tests' small context in one thread: each series has one number per step."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        config = make_config(folder, ppo__num_steps=20, teacher__autocast="off")
        trainer = pipeline.make_trainer(config, golden_context(config))
        pipeline.train(config, trainer)
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
