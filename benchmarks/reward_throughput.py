"""Completions scored per CPU-second by each reward function: `python benchmarks/reward_throughput.py`.

It may assume GSM8K and HumanEval in ../shared/data; a sandbox for the code rows.
It will not count wall time, except in the column that says so: CPU time includes child processes.
"""

import gzip
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from reward_models import RewardBlend, RewardSpec  # noqa: E402
from reward_models.code_execution import _memory  # noqa: E402
from reward_models.math_answers import extract_answer  # noqa: E402

DATA = ROOT / "../shared/data"
HUMANEVAL = DATA / "humaneval/HumanEval.jsonl.gz"
SIZE = 1_000


def cpu_seconds() -> float:
    """CPU time of this process and of all that it started, ended or not."""
    total = time.process_time()  # finer than the clock ticks that psutil reads
    for process in psutil.Process().children(recursive=True):
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return total + ended.ru_utime + ended.ru_stime


def math_batch(formulas: bool = False, size: int = SIZE) -> dict[str, Any]:
    """1,000 solutions of real models to GSM8K problems (mean 276 characters), with the reference as teacher output."""
    rows = [json.loads(line) for line in (DATA / "gsm8k/example_model_solutions.jsonl").open()]
    pairs = [(row, entry["solution"]) for row in rows for entry in row.values() if isinstance(entry, dict)]
    pairs = random.Random(0).sample(pairs, size)
    completions = [text for _, text in pairs]
    golds = [extract_answer(row["ground_truth"]) for row, _ in pairs]
    if formulas:
        completions = [f"{text}\n\\boxed{{\\sqrt{{{i}}} + x}}" for i, text in enumerate(completions)]
        golds = [f"x + \\sqrt{{{i}}}" for i in range(size)]
    columns = {"answer": golds, "teacher_output": [row["ground_truth"] for row, _ in pairs]}
    return batch([row["question"] for row, _ in pairs], completions, columns)


def code_batch() -> dict[str, Any]:
    """1,000 different programs: HumanEval's solutions, each with a comment that makes it unique."""
    problems = [json.loads(line) for line in gzip.decompress(HUMANEVAL.read_bytes()).splitlines()]
    chosen = [problems[i % len(problems)] for i in range(SIZE)]
    completions = [f"{p['canonical_solution'].rstrip()}  # {i}\n" for i, p in enumerate(chosen)]
    columns = {"test": [p["test"] for p in chosen], "entry_point": [p["entry_point"] for p in chosen]}
    return batch([p["prompt"] for p in chosen], completions, columns)


def batch(prompts: list[str], completions: list[str], columns: dict[str, list]) -> dict[str, Any]:
    ids = [[hash(word) % 50_000 for word in text.split()] for text in completions]
    columns = {**columns, "teacher_logprobs": [[-0.1] * len(row) for row in ids]}
    return {"prompts": prompts, "completions": completions, "completion_ids": ids, "columns": columns}


def measure(specs: list[RewardSpec], make: Callable[[], dict[str, Any]], rounds: int = 2) -> tuple[float, float, int]:
    """CPU seconds and wall seconds of one batch (best of the rounds, after one to warm up), and its size."""
    data, cpu, wall = make(), [], []
    size = len(data["completions"])
    with RewardBlend(specs) as blend:
        for round_number in range(rounds + 1):
            _memory.clear()
            started, started_cpu = time.perf_counter(), cpu_seconds()
            blend.score(**data)
            if round_number:
                cpu.append(cpu_seconds() - started_cpu)
                wall.append(time.perf_counter() - started)
    return min(cpu), min(wall), size


def reward_model(folder: Path) -> RewardSpec:
    """An untrained reward model of the demo teacher's size: as fast as a trained one."""
    from reward_models.learned_model import from_trunk
    from rl_distill.config import DemoConfig
    from rl_distill.demo.tiny import make_model, make_tokenizer

    data = math_batch()
    tokenizer = make_tokenizer([*data["prompts"], *data["completions"]], 448)
    trunk = make_model(DemoConfig().teacher, tokenizer, 0).get_decoder()
    from_trunk(trunk, pad_token_id=tokenizer.pad_token_id).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "quality.json").write_text(json.dumps({"predicts_correctness": True}))
    return RewardSpec("learned", 1.0, {"model": str(folder), "force": True})


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print_table(reward_model(Path(folder)))


def print_table(learned: RewardSpec) -> None:
    rows: list[tuple[str, list[RewardSpec], Callable]] = [
        ("math_answer (exact path)", [RewardSpec("math_answer")], math_batch),
        (
            "math_answer (algebra, all different)",
            [RewardSpec("math_answer")],
            lambda: math_batch(formulas=True, size=200),
        ),
        ("code_execution (all different)", [RewardSpec("code_execution")], code_batch),
        ("bleu", [RewardSpec("bleu")], math_batch),
        ("rouge_l", [RewardSpec("rouge_l")], math_batch),
        ("teacher_likelihood", [RewardSpec("teacher_likelihood")], math_batch),
        ("exact_match", [RewardSpec("exact_match")], math_batch),
        ("think_format", [RewardSpec("think_format")], math_batch),
        ("cosine_length", [RewardSpec("cosine_length", 1.0, {"max_len": 200})], math_batch),
        ("repetition", [RewardSpec("repetition")], math_batch),
        ("learned (3 layers of 128, 370 tokens each)", [learned], math_batch),
        (
            "the seed recipe, 0.7 bleu + 0.3 task_check",
            [RewardSpec("bleu", 0.7), RewardSpec("task_check", 0.3)],
            math_batch,
        ),
    ]
    everything = ["bleu", "rouge_l", "teacher_likelihood", "math_answer", "think_format", "repetition"]
    rows.append(("a blend of six, audit included", [RewardSpec(name, 0.2) for name in everything], math_batch))
    print("# Throughput of the reward functions\n")
    print(f"`python benchmarks/reward_throughput.py`: {SIZE:,} completions in one batch (algebra: 200), best of two.\n")
    print("| what | completions per CPU-second | CPU time of the batch | wall time of the batch |\n|---|---|---|---|")
    for name, specs, make in rows:
        cpu, wall, size = measure(specs, make)
        print(f"| {name} | {size / cpu:,.0f} | {1e3 * cpu:,.1f} ms | {1e3 * wall:,.0f} ms |", flush=True)
    print(f"\nLoad average at the end: {psutil.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores.")


if __name__ == "__main__":
    main()
