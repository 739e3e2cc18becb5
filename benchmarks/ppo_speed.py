"""Samples per second of this PPO trainer against TRL 1.12's, the last with PPO: same models, lengths, epochs and steps.

    python benchmarks/ppo_speed.py --baseline trl_ppo_baseline.py --baseline_python TRL112_VENV/bin/python

Each measurement is a process of its own; the two trainers take turns (A/B/A/B), and medians are compared. The work is
that of TRL's trainer: a policy, a reference, a value model with a trunk of its own and a reward network of the same
shape; KL to the reference in the reward; as many optimizer steps. The first update is warm-up on both sides. The critic
`separate` has a trunk of its own as TRL's has; `teacher_informed`, the default here, reads what the reference's and the
policy's forward passes give anyway. Rows per forward are each trainer's own affair: TRL's takes 8 and accumulates, as
the work says; this one takes up to 32, its default, in less memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
ROWS: dict[str, dict[str, Any]] = {
    "vocabulary 8,192": {
        "hidden": 128, "layers": 4, "vocab": 8192, "prompt_length": 64, "min_prompt_length": 64, "batch": 8,
        "grad_accum": 2, "ppo_epochs": 4, "eos": "none", "updates": 4,
    },
    "vocabulary 151,936": {
        "hidden": 64, "layers": 2, "vocab": 151936, "prompt_length": 32, "min_prompt_length": 32, "batch": 8,
        "grad_accum": 2, "ppo_epochs": 1, "eos": "none", "updates": 3,
    },
    "prompts of 8 to 64 tokens": {
        "hidden": 64, "layers": 2, "vocab": 1024, "prompt_length": 64, "min_prompt_length": 8, "batch": 8,
        "grad_accum": 4, "ppo_epochs": 4, "eos": "eos", "updates": 5,
    },
}  # fmt: skip
OWN_ROWS: dict[str, dict[str, Any]] = {
    "exact KL in the loss, vocabulary 151,936": ROWS["vocabulary 151,936"] | {
        "settings": {"anchor": {"placement": "loss", "estimator": "exact"}},
    },
    "groups of 4, one update, k3 in the loss, vocabulary 151,936": ROWS["vocabulary 151,936"] | {
        "settings": {
            "anchor": {"placement": "loss", "estimator": "k3"}, "ppo": {"advantage": "group_mean", "group_size": 4},
        },
    },
}  # fmt: skip
"""Work that TRL's PPO trainer has no settings for: to compare two versions of this one."""
RESPONSE_LENGTH = 64
TINY = {"hidden": 16, "layers": 1, "vocab": 128, "updates": 2, "grad_accum": 1, "prompt_length": 8}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", help="trl_ppo_baseline.py; without it only this trainer is measured")
    parser.add_argument("--baseline_python", default=sys.executable, help="python of a venv with trl==1.12.0")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=[*ROWS, *OWN_ROWS])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--critics", nargs="+", default=["separate", "teacher_informed"], help="separate is TRL's; also shared"
    )
    parser.add_argument("--tiny", action="store_true", help="shapes that only show that everything runs")
    parser.add_argument("--output", help="a Markdown file for the table; printed in any case")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


class PeakRSS(threading.Thread):
    """The largest resident size of this process from start() to stop(), in MiB."""

    def __init__(self) -> None:
        import psutil

        super().__init__(daemon=True)
        self.process, self.peak, self.running = psutil.Process(), 0, True

    def run(self) -> None:
        while self.running:
            self.peak = max(self.peak, self.process.memory_info().rss)
            time.sleep(0.01)

    def stop(self) -> float:
        self.running = False
        self.join()
        return self.peak / 2**20


def shape(work: dict[str, Any]) -> Any:
    """The Qwen2 config that the baseline script makes of these sizes."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=work["vocab"],
        hidden_size=work["hidden"],
        num_hidden_layers=work["layers"],
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        max_position_embeddings=work["prompt_length"] + RESPONSE_LENGTH + 8,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=True,
    )


def make_tokenizer(vocab_size: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1, "<unk>": 2, **{f"t{i}": i for i in range(3, vocab_size)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )


class RewardNetwork:
    """A reward network of the policy's shape, as TRL's trainer needs one: its score of prompt and completion."""

    __name__ = "network"

    def __init__(self, work: dict[str, Any], tokenizer: Any) -> None:
        from transformers import Qwen2ForSequenceClassification

        config = shape(work)
        config.num_labels = 1
        self.model, self.tokenizer = Qwen2ForSequenceClassification(config).eval(), tokenizer

    def __call__(self, prompts: list[str], completion_ids: list[list[int]], **columns: Any) -> list[float]:
        import torch

        prompt_ids = self.tokenizer(prompts, add_special_tokens=False)["input_ids"]
        rows = [[*p, *c] for p, c in zip(prompt_ids, completion_ids, strict=True)]
        length = max(map(len, rows))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        with torch.no_grad():
            hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
            last = hidden[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])]
            return self.model.score(last)[:, 0].tolist()


NETWORK: RewardNetwork | None = None


def network_score(**batch: Any) -> list[float]:
    """The reward function of the measured run."""
    assert NETWORK is not None
    return NETWORK(**batch)


def make_trainer(work: dict[str, Any], folder: Path, critic: str) -> Any:
    """This project's trainer for the same work."""
    global NETWORK
    import torch
    from transformers import Qwen2ForCausalLM

    from rl_distill import pipeline
    from rl_distill.config import load_config
    from rl_distill.run_setup import RunContext
    from rl_distill.teachers.colocated import make_teacher
    from rl_distill.types import Problem, Splits

    torch.manual_seed(0)
    rows = work["batch"] * work["grad_accum"]
    changes = work.get("settings", {})
    config = load_config(
        None,
        {
            "output_dir": str(folder),
            "report_to": [],
            "rewards": [{"fn": "benchmarks.ppo_speed:network_score", "weight": 1.0}],
            "anchor": {"placement": "reward", "estimator": "k1", "schedule": "fixed", "coef": 0.05}
            | changes.get("anchor", {}),
            "teacher": {"autocast": "off"},
            "ppo": {
                "num_steps": work["updates"],
                "batch_size": rows,
                "micro_batch_size": min(rows, 32),  # the default: no logits of a whole batch are held, so there is room
                "num_minibatches": 1,
                "num_epochs": work["ppo_epochs"],
                "critic": critic,
                "critic_warmup_steps": 0,
                "warmup_steps": 0,
                "learning_rate": 3e-6,
                "value_learning_rate": 3e-6,
            }
            | changes.get("ppo", {}),
            "generation": {"max_completion_length": RESPONSE_LENGTH},
            "evaluation": {"every_steps": 10_000},
        },
    )
    tokenizer = make_tokenizer(work["vocab"])
    policy, reference = Qwen2ForCausalLM(shape(work)), Qwen2ForCausalLM(shape(work))
    reference.load_state_dict(policy.state_dict())
    NETWORK = RewardNetwork(work, tokenizer)
    sys.modules.setdefault("benchmarks.ppo_speed", sys.modules[__name__])
    draw = torch.Generator().manual_seed(0)
    problems = []
    for number in range(rows * work["updates"]):
        low, high = min(work["min_prompt_length"], work["prompt_length"]), work["prompt_length"]
        length = int(torch.randint(low, high + 1, (1,), generator=draw))
        ids = torch.randint(3, work["vocab"], (length,), generator=draw).tolist()
        problems.append(Problem("words", str(number), " ".join(f"t{i}" for i in ids)))
    splits = Splits(cold_start=[], train=problems, validation=problems[:1], test=problems[:1])
    context = RunContext(splits, make_teacher(config, reference, tokenizer), policy, tokenizer, {}, 0)
    trainer = pipeline.make_trainer(config, context)
    trainer.args.save_strategy = "no"
    return trainer


def measure_ours(work: dict[str, Any], threads: int, critic: str) -> dict[str, float]:
    """One run of this project's trainer; the clock starts after the first update."""
    import psutil
    import torch
    from transformers import TrainerCallback

    from rl_distill.reporting.training_log import MetricsWriter

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(work, Path(folder), critic)
        clock: dict[str, float] = {}
        phases: dict[str, float] = {}
        samples: list[int] = []

        class Watch(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                step, rest = divmod(state.global_step, work["ppo_epochs"])
                if rest == 0:
                    samples.append(sum(len(c.token_ids) for c in trainer.collector.last_rollout.completions))
                if (step, rest) == (1, 0):
                    clock["start"], clock["cpu"] = time.perf_counter(), time.process_time()
                    trainer.phases.take()
                    samples.clear()
                if step == work["updates"]:
                    clock["stop"], clock["cpu_stop"] = time.perf_counter(), time.process_time()
                    phases.update(trainer.phases.seconds)

        trainer.add_callback(Watch())
        trainer.remove_callback(MetricsWriter)  # it would take the phases' seconds at every step
        before = psutil.Process().memory_info().rss / 2**20
        watch = PeakRSS()
        watch.start()
        trainer.train()
        peak = watch.stop()
    wall = clock["stop"] - clock["start"]
    rows = work["batch"] * work["grad_accum"] * (work["updates"] - 1)
    return {
        "samples_per_s": rows / wall,
        "wall_s": wall,
        "cpu_s": clock["cpu_stop"] - clock["cpu"],
        "optimizer_steps_per_update": trainer.state.global_step / work["updates"],
        "mean_response_tokens": sum(samples) / rows,
        "rss_before_train_mib": before,
        "peak_rss_train_mib": peak,
        "floor_s": floor_seconds(work, 2 if critic == "separate" else 1),
        **{f"share_{name}": seconds / wall for name, seconds in sorted(phases.items())},
    }


def floor_seconds(work: dict[str, Any], num_trunks: int) -> float:
    """Seconds the timed updates would take if all products ran at this machine's rate for large matrices.

    Counted: 2 FLOPs per weight and token for each forward (sampling, teacher, reward, and the `num_trunks` trunks of
    policy and critic), 6 for the trunks in each epoch. Attention itself is left out.
    """
    import torch

    size = 1024
    a = torch.randn(size, size)
    start = time.perf_counter()
    for _ in range(5):
        a @ a
    rate = 5 * 2 * size**3 / (time.perf_counter() - start)
    hidden = work["hidden"]
    trunk = work["layers"] * (hidden * hidden * 3 + 3 * hidden * 128)
    head = hidden * work["vocab"]
    rows = work["batch"] * work["grad_accum"] * (work["updates"] - 1)
    tokens = (work["min_prompt_length"] + work["prompt_length"]) / 2 + RESPONSE_LENGTH
    trunks = tokens * trunk * (2 * (3 + num_trunks) + 6 * num_trunks * work["ppo_epochs"])
    heads = RESPONSE_LENGTH * head * (2 * 3 + 6 * work["ppo_epochs"])
    return rows * (trunks + heads) / rate


def run_ours(name: str, critic: str, args: argparse.Namespace) -> dict[str, float]:
    words = ["--one", name, "--threads", str(args.threads), "--critics", critic, *(["--tiny"] if args.tiny else [])]
    return _last_json([sys.executable, "-m", "benchmarks.ppo_speed", *words], "OURS ", args.threads)


def run_baseline(work: dict[str, Any], args: argparse.Namespace) -> dict[str, float]:
    words = [word for name, value in work.items() for word in (f"--{name}", str(value))]
    words += ["--response_length", str(RESPONSE_LENGTH), "--threads", str(args.threads), "--quiet"]
    return _last_json([args.baseline_python, args.baseline, *words], "BASELINE ", args.threads)


def _last_json(command: list[str], mark: str, threads: int) -> dict[str, float]:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith(mark)]
    if not lines:
        raise RuntimeError(f"{' '.join(command)} gave no result:\n{done.stderr[-2000:]}")
    return json.loads(lines[-1].removeprefix(mark))


def sized(name: str, tiny: bool) -> dict[str, Any]:
    work = (ROWS | OWN_ROWS)[name] | (TINY if tiny else {})
    return work | {"min_prompt_length": min(work["min_prompt_length"], work["prompt_length"])}


def compare(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Medians of one row's measurements, taken in turns."""
    work = sized(name, args.tiny)
    found: dict[str, list[dict[str, float]]] = {**{critic: [] for critic in args.critics}, "trl": []}
    for number in range(args.repeats):
        for critic in args.critics:
            found[critic].append(run_ours(name, critic, args))
        if args.baseline and name in ROWS:
            found["trl"].append(run_baseline(work, args))
        for who, measured in found.items():
            if measured:
                print(f"{name} {number + 1}/{args.repeats} {who} {json.dumps(measured[-1])}", flush=True)
    return {who: _medians(measured) for who, measured in found.items() if measured}


def _medians(measured: list[dict[str, Any]]) -> dict[str, float]:
    names = [name for name, value in measured[0].items() if isinstance(value, int | float)]
    return {name: statistics.median(run[name] for run in measured) for name in names}


def added(run: dict[str, float]) -> float:
    """MiB that training took above what was resident before it."""
    return run["peak_rss_train_mib"] - run["rss_before_train_mib"]


def table(results: dict[str, dict[str, dict[str, float]]], critics: list[str]) -> str:
    """Markdown: speeds, memory, optimizer steps, and where our time goes; a row for each work and critic."""
    lines = [
        "| work | our critic | ours, samples/s | TRL 1.12, samples/s | ratio | ours, CPU s | TRL, CPU s | "
        "ours, MiB above start | TRL, MiB above start | optimizer steps per update |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = [(name, critic, row[critic], row.get("trl")) for name, row in results.items() for critic in critics]
    for name, critic, ours, trl in rows:
        speed, steps = ours["samples_per_s"], f"{ours['optimizer_steps_per_update']:.0f}"
        cells = [name, critic, f"{speed:.1f}"]
        cells += [f"{trl['samples_per_s']:.1f}", f"{speed / trl['samples_per_s']:.1f}x"] if trl else "--"
        cells += [f"{ours['cpu_s']:.1f}", f"{trl['cpu_s']:.1f}" if trl else "-"]
        cells += [f"{added(ours):.0f}", f"{added(trl):.0f}" if trl else "-"]
        cells += [f"{steps} and {trl['optimizer_steps_per_update']:.0f}" if trl else steps]
        lines.append(f"| {' | '.join(cells)} |")
    phases = ("generate", "teacher", "prepare", "reward", "update")
    lines += ["", f"| our time | our critic | {' | '.join(phases)} | floor (products alone) |"]
    lines += ["|---|" + "---|" * (len(phases) + 2)]
    for name, critic, ours, _ in rows:
        shares = [f"{100 * ours.get(f'share_{phase}', 0.0):.0f} %" for phase in phases]
        floor = f"{100 * ours['floor_s'] / ours['wall_s']:.0f} %"
        lines.append(f"| {name} | {critic} | {' | '.join(shares)} | {floor} |")
    return "\n".join(lines)


def main() -> None:
    args = options()
    if args.one:
        print("OURS " + json.dumps(measure_ours(sized(args.one, args.tiny), args.threads, args.critics[0])))
        return
    text = table({name: compare(name, args) for name in args.rows}, args.critics)
    print("\n" + text)
    if args.output:
        Path(args.output).write_text(text + "\n")


if __name__ == "__main__":
    main()
