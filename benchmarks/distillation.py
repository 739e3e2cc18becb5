"""Recipes of distillation on the demo's tasks: what a student cut from its teacher regains, arm by arm.

    python benchmarks/distillation.py --output runs/distillation --seeds 0 1 2

Every arm of a seed has the same six-layer teacher, the same sequences and as many of them. An arm that is finished is
not run again; one that was killed goes on from its checkpoint. One process per output folder. `--table_only` prints the
table of what is there.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

STEPS, ROWS, ROLLOUTS = 120, 16, 64
WORLD: dict[str, Any] = {
    "demo.teacher": {"num_layers": 6, "hidden_size": 96, "intermediate_size": 192, "num_heads": 4},
    "demo.teacher_sft": {"num_steps": 450, "batch_size": 32, "learning_rate": 1e-2, "warmup_steps": 30},
    "demo.num_test": 400,
    "demo.num_validation": 32,
    "demo.num_train_prompts": 4000,
    "generation.max_completion_length": 96,
    "report_to": [],
    "anchor.schedule": "fixed",
    "checkpoint.keep_last": 1,
    "student.arch": "teacher:50%",
}
KD: dict[str, Any] = {
    "distill.num_steps": STEPS,
    "distill.batch_size": ROWS,
    "distill.learning_rate": 3e-3,
    "distill.alpha.start": 0.25,
    "distill.num_heldout": 128,
    "distill.evaluate_every_steps": 60,
}
PPO: dict[str, Any] = {"ppo.batch_size": ROLLOUTS, "ppo.num_minibatches": 4, "evaluation.every_steps": 1000}


@dataclass(frozen=True)
class Arm:
    """A row of the table. `distill` None: no distillation stage; `ppo_steps` 0: none of PPO; `is_random`: the cut
    student's shape with random weights."""

    words: str
    distill: dict[str, Any] | None = field(default_factory=dict)
    student: str = "teacher:50%"
    is_random: bool = False
    ppo_steps: int = 0
    ppo: dict[str, Any] = field(default_factory=dict)


def schedule(name: str, start: float, end: float, kind: str = "linear") -> dict[str, Any]:
    return {f"distill.{name}.start": start, f"distill.{name}.end": end, f"distill.{name}.kind": kind}


SFT = {"distill.alpha.start": 1.0}
GOLD = {"distill.data": "gold"}
BOTH: dict[str, Any] = {"distill.inner.attention_map": {1: 3, 2: 5}, "distill.inner.hidden_map": "uniform"}
GUIDED: dict[str, Any] = {"distill.guided.every_steps": 5}
HALF, EQUAL_STEPS = {"distill.num_steps": STEPS}, STEPS * ROWS // ROLLOUTS
ARMS: dict[str, Arm] = {
    "cut": Arm("the cut alone, untrained", None),
    "kd": Arm("KD : task = 3 : 1, forward KL, T 1"),
    "sft": Arm("SFT on teacher texts", SFT),
    "sft_gold": Arm("SFT on gold solutions", SFT | GOLD),
    "kd_gold": Arm("3 : 1 on gold solutions", GOLD),
    "kd_only": Arm("KD alone (1 : 0)", {"distill.alpha.start": 0.0}),
    "reverse_kl": Arm("3 : 1, reverse KL", {"distill.divergence": "reverse_kl"}),
    "jsd": Arm("3 : 1, JSD 0.5", {"distill.divergence": "jsd"}),
    "tvd": Arm("3 : 1, total variation", {"distill.divergence": "tvd"}),
    "t2": Arm("3 : 1, T 2", {"distill.temperature.start": 2.0}),
    "t2_05": Arm("3 : 1, T 2.0 -> 0.5", schedule("temperature", 2.0, 0.5)),
    "t4_1": Arm("3 : 1, T 4.0 -> 1.0", schedule("temperature", 4.0, 1.0)),
    "progressive": Arm(
        "first 20 % teacher only, then 3 : 1", schedule("alpha", 0.0, 0.25, "step") | {"distill.alpha.step_at": 0.2}
    ),
    "attention": Arm("3 : 1 and attention at two mapped layers", {"distill.inner.attention_map": {1: 3, 2: 5}}),
    "hidden": Arm("3 : 1 and hidden states of all layers", {"distill.inner.hidden_map": "uniform"}),
    "on_policy": Arm("3 : 1, half of the rows the student's own", {"distill.on_policy.start": 0.5}),
    "guided": Arm("3 : 1, guided by conflict per task", GUIDED),
    "guided_layers": Arm("hidden states and attention, guided by conflict", GUIDED | BOTH),
    "guided_variance": Arm(
        "hidden states and attention, guided by variance", GUIDED | BOTH | {"distill.guided.by": "variance"}
    ),
    "layers": Arm("hidden states and attention, not guided", BOTH),
    "mixed": Arm(
        "half the student's own rows, drawn with 0.2 of the teacher",
        {"distill.on_policy.start": 0.5, "distill.teacher_mix.start": 0.2},
    ),
    "cache_sampled": Arm("3 : 1 from 16 drawn ids per token", {"distill.cache": "sampled", "distill.top_k": 16}),
    "cache_top_k": Arm("3 : 1 from the 16 likeliest ids", {"distill.cache": "top_k", "distill.top_k": 16}),
    "block_influence": Arm("layers by block influence", student="teacher:block_influence:50%"),
    "learned": Arm("layers by greedy search", student="teacher:learned:50%"),
    "heads_variance": Arm("and 1 of 4 heads by weight variance", student="teacher:layers=50%;heads=weight_variance:3"),
    "heads_activation": Arm("and 1 of 4 heads by activation", student="teacher:layers=50%;heads=activation_norm:3"),
    "random": Arm("random weights, 3 : 1", is_random=True),
    "random_sft_gold": Arm("random weights, SFT on gold", SFT | GOLD, is_random=True),
    "kd_twice": Arm("KD alone, twice the sequences", {"distill.num_steps": 2 * STEPS}),
    "kd_ppo": Arm("KD, then PPO with anchor and check", HALF, ppo_steps=EQUAL_STEPS),
    "ppo_twice": Arm("PPO alone, twice the sequences", None, ppo_steps=2 * EQUAL_STEPS),
    "kd_reward_only": Arm("KD, then PPO without anchor", HALF, ppo_steps=EQUAL_STEPS, ppo={"anchor.placement": "none"}),
}
BASELINE = "kd"


def config_of(arm: Arm, seed: int, folder: Path, cache: Path, settings: dict[str, Any]) -> Any:
    from rl_distill.config import load_config

    own = {"seed": seed, "output_dir": str(folder), "cache_dir": str(cache), "student.arch": arm.student}
    chosen = WORLD | PPO | {"ppo.num_steps": max(1, arm.ppo_steps)} | arm.ppo
    chosen |= {"ppo.critic_warmup_steps": min(5, arm.ppo_steps // 5), "checkpoint.every_steps": 50}
    if arm.distill is not None:
        chosen |= KD | arm.distill
    return load_config(ROOT / "configs" / "demo.yaml", chosen | own | settings)


def run_arm(name: str, seed: int, output: Path, settings: dict[str, Any]) -> None:
    """Trains one arm for one seed and writes result.json in its folder, unless it is there."""
    from rl_distill import pipeline, run_setup, student_stages
    from rl_distill.evals.distributed import solve
    from rl_distill.progress import Stages

    folder, arm = output / f"{name}-{seed}", ARMS[name]
    if (folder / "result.json").is_file():
        return
    config = config_of(arm, seed, folder, output / "cache", settings)
    context = run_setup.prepare(config, Stages(quiet=True), with_anchor=False)
    for stage in (output / "cache").glob("distill-*"):  # an arm that begins like another pays for it, too
        shutil.rmtree(stage)
    if arm.is_random:
        context.student = random_like(context.student, seed)
    started = time.process_time()
    student_stages.prepare_student(config, context, Stages(quiet=True))
    if arm.ppo_steps:
        trainer = pipeline.make_trainer(config, context)
        pipeline.train(config, trainer)
        context.student = trainer.model.policy
    seconds = time.process_time() - started
    solved = solve(context.student.eval(), context.tokenizer, context.splits.test, config)
    result = {
        "accuracy": solved.accuracy(),
        "grades": solved.grades,
        **near_gold(context, config),
        "parameters": sum(p.numel() for p in context.student.parameters()),
        "sequences": arm.ppo_steps * ROLLOUTS + (0 if config.distill is None else config.distill.num_steps * ROWS),
        "teacher_tokens_scored": context.teacher.tokens_scored,
        "cpu_seconds": round(seconds, 1),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result))
    print(f"{name} seed {seed}: {result['accuracy']['overall']:.3f}, NLL {result['nll']:.3f}", flush=True)


def random_like(student: Any, seed: int) -> Any:
    """A model of the student's shape with the weights that transformers starts it from."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed + 1)
    return AutoModelForCausalLM.from_config(student.config).to(student.device)


def near_gold(context: Any, config: Any, policy: Any = None) -> dict[str, float]:
    """NLL of the gold solutions of 200 test problems, and KL(teacher || student) along them, per token."""
    from rl_distill import student_stages
    from rl_distill.config import DistillConfig
    from rl_distill.distill.heldout import heldout_metrics
    from rl_distill.models.tokenizers import num_token_ids

    gold = student_stages.sequences(config, DistillConfig(data="gold"), context, context.splits.test[:200])
    tokenizer, scored = context.tokenizer, context.teacher.tokens_scored
    found = heldout_metrics(
        context.student if policy is None else policy,
        context.teacher,
        gold,
        pad_token_id=tokenizer.pad_token_id,
        num_tokens_vocab=num_token_ids(tokenizer),
    )
    context.teacher.tokens_scored = scored  # what training spent
    return {"nll": found["nll"], "kl": found["forward_kl"]}


def run_teacher(seed: int, output: Path, settings: dict[str, Any]) -> None:
    """How the teacher does on the same problems, as teacher-SEED/result.json."""
    from rl_distill import run_setup
    from rl_distill.evals.distributed import solve_with
    from rl_distill.progress import Stages

    folder = output / f"teacher-{seed}"
    if (folder / "result.json").is_file():
        return
    config = config_of(ARMS["cut"], seed, folder, output / "cache", settings)
    context = run_setup.prepare(config, Stages(quiet=True), with_anchor=False)
    solved = solve_with(context.teacher, context.tokenizer, context.splits.test, config)
    teacher: Any = context.teacher
    result = {"accuracy": solved.accuracy(), "grades": solved.grades, **near_gold(context, config, teacher.model)}
    result |= {"parameters": sum(p.numel() for p in teacher.model.parameters())}
    (folder / "result.json").write_text(json.dumps(result))
    print(f"teacher seed {seed}: {result['accuracy']['overall']:.3f}, NLL {result['nll']:.3f}", flush=True)


def results_of(name: str, seeds: Sequence[int], output: Path) -> dict[int, dict[str, Any]]:
    paths = {seed: output / f"{name}-{seed}" / "result.json" for seed in seeds}
    return {seed: json.loads(path.read_text()) for seed, path in paths.items() if path.is_file()}


def mean_se(values: Sequence[float], digits: int = 3) -> str:
    """The mean with its standard error over seeds; the number alone where there is one."""
    if len(values) < 2:
        return "".join(f"{value:.{digits}f}" for value in values)
    return f"{mean(values):.{digits}f} ± {stdev(values) / math.sqrt(len(values)):.{digits}f}"


def lead(arm: dict[int, dict[str, Any]], baseline: dict[int, dict[str, Any]]) -> str:
    """Accuracy minus the baseline's, paired. With one seed the standard error is over problems, else over seeds."""
    both = [seed for seed in arm if seed in baseline]
    if not both:
        return ""
    pairs = [[a - b for a, b in zip(arm[s]["grades"], baseline[s]["grades"], strict=True)] for s in both]
    if len(both) > 1:
        return mean_se([mean(differences) for differences in pairs])
    (differences,) = pairs
    error = stdev(differences) / math.sqrt(len(differences))
    return f"{mean(differences):+.3f} ({error:.3f})"


def table(seeds: Sequence[int], output: Path, arms: Sequence[str]) -> str:
    """A row per arm that has results: accuracy, paired difference to 3 : 1, NLL, KL and what training took."""
    baseline = results_of(BASELINE, seeds, output)
    lines = [
        "| arm | accuracy | math | code | minus `kd` | NLL of gold | KL to teacher | sequences | CPU s | seeds |",
        "|" + "---|" * 10,
    ]
    for name in ["teacher", *arms]:
        found = results_of(name, seeds, output)
        if not found:
            continue
        runs = list(found.values())
        tasks = [mean_se([run["accuracy"][task] for run in runs]) for task in ("overall", "math", "code")]
        cells = [f"`{name}`: {ARMS[name].words}" if name in ARMS else f"*{name}*", *tasks]
        cells += ["" if name == BASELINE else lead(found, baseline)]
        cells += [mean_se([run[key] for run in runs]) for key in ("nll", "kl")]
        cost = [f"{mean(run.get(key, 0) for run in runs):,.0f}" for key in ("sequences", "cpu_seconds")]
        lines.append(f"| {' | '.join([*cells, *cost, str(len(runs))])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/distillation"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--table_only", action="store_true", help="run nothing; the table of the finished arms")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings for every arm")
    arguments = parser.parse_args()
    from rl_distill.config.reading import Word

    settings = {name: Word(value) for name, _, value in (word.partition("=") for word in arguments.set)}
    if not arguments.table_only:
        from rl_distill import distributed
        from rl_distill.progress import quiet_libraries

        quiet_libraries()
        distributed.set_threads(1)
        for seed in arguments.seeds:
            run_teacher(seed, arguments.output, settings)
            for arm in arguments.arms:
                run_arm(arm, seed, arguments.output, settings)
    text = table(arguments.seeds, arguments.output, arguments.arms)
    (arguments.output / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
