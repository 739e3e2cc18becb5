"""A real pretrained model of 135 M parameters on tasks it half knows: what ways of training give and what they cost.

    python benchmarks/real_model.py --output runs/real_model --rungs json_object function --seeds 0 1

Needs rl_distill[gguf] and, without --model FOLDER, a package registry that pip reaches. The teacher is a frozen copy
of the student itself. Every part (the model as it is, an arm with a seed) is kept in a folder of its own under --output
and not run again, so the command can be repeated after an interruption; `--arms` takes some of them. Ends with the
tables in Markdown, of what has been run so far. Answers are greedy.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from ladder import RUNGS, ladder_check, problems  # noqa: E402

BEFORE = "before"
GROUP_SIZE = 8
PPO_ARMS: dict[str, dict[str, Any]] = {
    "anchored_ppo": {"ppo.advantage": "gae", "ppo.group_size": 1, "ppo.critic_warmup_steps": 3},
    "group_means": {"ppo.advantage": "group_mean", "ppo.group_size": GROUP_SIZE},
}
ARMS = {
    BEFORE: "the model as it is",
    "anchored_ppo": "PPO with a critic, anchored",
    "group_means": f"group means of {GROUP_SIZE}, anchored",
    "own_samples_sft": "SFT on its own verified samples",
}
NUM_SHOWN_IN_RUN = 8
"""Rows of the run's own validation and test: the benchmark evaluates by itself, on all rungs."""


def main() -> None:
    args = parse()
    model = args.model
    if model is None:
        from smollm2 import make_folder

        model = make_folder(args.output / "model")
    write_data(args)
    for arm in args.arms:
        for seed in args.seeds if arm != BEFORE else [0]:
            run_part(args, arm, seed, Path(model))
    text = report(args)
    (args.output / "tables.md").write_text(text + "\n")
    print(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output", type=Path, default=Path("runs/real_model"))
    add("--model", type=Path, help="a Hugging Face folder with a chat template; without it pip fetches SmolLM2")
    add("--rungs", nargs="+", default=["json_object", "function"], choices=list(RUNGS), help="trained on, all together")
    add("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--num_steps", type=int, default=30, help="rollouts of a PPO arm")
    add("--batch_size", type=int, default=64, help="completions of a rollout")
    add("--learning_rate", type=float, help="of the PPO arms; without it what rl-distill chooses for the model")
    add("--temperature", type=float, default=0.7, help="of the samples of every arm")
    add("--bf16", action="store_true", help="autocast of the training forward, where the CPU or GPU is fast at it")
    add("--num_test", type=int, default=200, help="held-out problems of each rung that is trained on")
    add("--num_other", type=int, default=200, help="of each other rung, for forgetting")
    add("--num_texts", type=int, default=12, help="texts of each kind for perplexity, 512 tokens at most")
    args = parser.parse_args()
    args.output = args.output.resolve()
    return args


def write_data(args: argparse.Namespace) -> None:
    """train.jsonl of the chosen rungs, mixed, and a few rows for the run's own validation and test."""
    folder = args.output / "data"
    folder.mkdir(parents=True, exist_ok=True)
    split: dict[str, list[Any]] = {"train": [], "validation": [], "test": []}
    few = max(1, NUM_SHOWN_IN_RUN // len(args.rungs))
    for rung in args.rungs:
        rows, held_out = problems(rung)
        split["train"] += rows[few:]
        split["validation"] += rows[:few]
        split["test"] += held_out[:few]
    random.Random(0).shuffle(split["train"])
    for name, rows in split.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def settings_of(args: argparse.Namespace, folder: Path, model: Path, seed: int) -> dict[str, Any]:
    """Of every arm: the same model, prompts, length and grader, and a frozen copy of the model as its anchor."""
    data = args.output / "data"
    settings = {
        "demo": None,
        "seed": seed,
        "output_dir": str(folder),
        "report_to": [],
        "student.model": str(model),
        "teacher.model": str(model),
        "data.train": str(data / "train.jsonl"),
        "data.validation": str(data / "validation.jsonl"),
        "data.test": str(data / "test.jsonl"),
        "rewards": [{"fn": f"{ROOT / 'benchmarks' / 'ladder.py'}:ladder_check", "weight": 1.0}],
        "generation.max_completion_length": max(RUNGS[rung].max_tokens for rung in args.rungs),
        "generation.temperature": args.temperature,
        "anchor.schedule": "fixed",
        "anchor.coef": 0.05,
        "ppo.num_steps": args.num_steps,
        "ppo.batch_size": args.batch_size,
        "ppo.warmup_steps": 3,
        "ppo.bf16": args.bf16,
        "evaluation.every_steps": args.num_steps,
        "checkpoint.every_minutes": 10,
        "resume_from_checkpoint": "latest",
    }
    return settings if args.learning_rate is None else settings | {"ppo.learning_rate": args.learning_rate}


def run_part(args: argparse.Namespace, arm: str, seed: int, model: Path) -> None:
    """Trains and evaluates one arm with one seed, unless that has been done."""
    folder = args.output / f"{arm}-{seed}"
    if (folder / "part.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    trained, about = model, {}
    if arm in PPO_ARMS:
        trained, about = train_ppo(args, arm, folder, model, seed)
    elif arm != BEFORE:
        trained, about = train_on_own_samples(args, folder, model, seed)
    found = {"arm": arm, "seed": seed, "num_steps": args.num_steps, "batch_size": args.batch_size} | about
    found |= evaluate(args, trained)
    (folder / "part.json").write_text(json.dumps(found, indent=1))
    print(f"{arm} seed {seed}: done", flush=True)


def train_ppo(args: argparse.Namespace, arm: str, folder: Path, model: Path, seed: int) -> tuple[Path, dict[str, Any]]:
    """(the trained student's folder, what the run says about itself)."""
    if not (folder / "results.json").is_file():
        settings = settings_of(args, folder, model, seed) | PPO_ARMS[arm]
        words = [word for key, value in settings.items() for word in (f"--{key}", said(value))]
        with (folder / "log.txt").open("a") as log:
            command = [sys.executable, str(ROOT / "launch" / "ppo.py"), *words]
            subprocess.run(command, stdout=log, stderr=log, check=True)
    results = json.loads((folder / "results.json").read_text())
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    about = {
        "learning_rate": results["config"]["ppo"]["learning_rate"],
        "cpu_seconds": results["cpu_seconds"].get("ppo"),
        "sequences": results["ledger"]["student_sequences"],
        "curves": {name: curve(metrics, name) for name in ("reward", "explained_variance", "kl")},
    }
    return folder / "student", about


def said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def curve(metrics: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [row[name] for row in metrics if row.get(name) is not None]


def train_on_own_samples(args: argparse.Namespace, folder: Path, model: Path, seed: int) -> tuple[Path, dict[str, Any]]:
    """Rejection sampling: as many samples as a PPO arm draws, the right ones learned in two passes."""
    from rl_distill import distributed, run_setup, student_stages
    from rl_distill.config import load_config
    from rl_distill.models.loading import save_to_use
    from rl_distill.progress import Stages, quiet_libraries

    quiet_libraries()
    config = load_config(None, settings_of(args, folder, model, seed) | {"warm_up.warmup_steps": 3})
    assert config.warm_up is not None
    distributed.set_threads(config.num_threads)
    stages = Stages()
    context = run_setup.prepare(config, stages, with_anchor=False)
    started = cpu_seconds()
    rows = list(context.splits.train)
    random.Random(seed).shuffle(rows)
    chosen = rows[: args.num_steps * args.batch_size // GROUP_SIZE]
    with stages("samples", f"{GROUP_SIZE} answers to each of {len(chosen)} prompts"):
        outputs = run_setup.teacher_outputs(config, context.teacher, context.tokenizer, chosen, GROUP_SIZE)
    pairs = [(problem, done) for problem, output in zip(chosen, outputs, strict=True) for done in output.completions()]
    verdicts = graded([problem for problem, _ in pairs], [done for _, done in pairs])
    kept = [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict == 1]
    examples = [to_learn(context.tokenizer, problem, done.text) for problem, done in kept]
    size = min(32, len(examples))
    steps = max(1, 2 * len(examples) // size)
    stage = replace(
        config.warm_up, num_steps=steps, batch_size=size, micro_batch_size=min(8, size), evaluate_every_steps=steps
    )
    with stages("sft", f"{stage.num_steps} steps of {size} on {len(kept)} right answers"):
        trainer = student_stages.make_trainer(config, stage, context, examples, [], folder / "sft")
        trainer.evaluate_student = None
        trainer.train()
    save_to_use(context.student, context.tokenizer, folder / "student")
    about = {
        "learning_rate": stage.learning_rate,
        "cpu_seconds": cpu_seconds() - started,
        "sequences": len(pairs),
        "right_samples": len(kept),
    }
    return folder / "student", about


def to_learn(tokenizer: Any, problem: Any, text: str) -> Any:
    from rl_distill.distill.examples import Example
    from rl_distill.models.tokenizers import prompt_ids

    (prompt,) = prompt_ids(tokenizer, [problem.prompt])
    completion = tokenizer(text, add_special_tokens=False)["input_ids"]
    return Example(problem.task, prompt, [*completion, tokenizer.eos_token_id])


def cpu_seconds() -> float:
    return sum(getattr(resource.getrusage(resource.RUSAGE_SELF), name) for name in ("ru_utime", "ru_stime"))


def graded(rows: Sequence[Any], completions: Sequence[Any]) -> list[float]:
    """The reward's own verdicts."""
    from rl_distill.data.reward_inputs import reward_inputs

    inputs = reward_inputs(rows, completions)
    scores = ladder_check(
        prompts=inputs["prompts"],
        completions=inputs["completions"],
        completion_ids=inputs["completion_ids"],
        **inputs["columns"],
    )
    return [float(score or 0) for score in scores]


def evaluate(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Verdicts of greedy answers to held-out problems of every rung, and perplexity on general text."""
    import torch

    from rl_distill import distributed
    from rl_distill.config import load_config
    from rl_distill.data.problems import load_problems
    from rl_distill.evals.evaluation import GreedyModel, write
    from rl_distill.generation.sampling import Sampling
    from rl_distill.models.loading import load
    from rl_distill.types import Finish

    config = load_config(None, settings_of(args, args.output / "evaluation", folder, 0))
    distributed.set_threads(config.num_threads)
    model, tokenizer = load(str(folder))
    writer = GreedyModel(model.to(distributed.device()).eval(), tokenizer)
    verdicts, cut = {}, {}
    for rung, spec in RUNGS.items():
        number = args.num_test if rung in args.rungs else args.num_other
        path = args.output / "data" / f"test-{rung}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in problems(rung)[1][:number]))
        rows = load_problems(config.data, str(path), "test", tokenizer)
        answers = write(writer, tokenizer, rows, Sampling(spec.max_tokens, temperature=0.0), config)
        verdicts[rung] = graded(rows, answers)
        cut[rung] = sum(answer.finish is Finish.LENGTH for answer in answers) / len(answers)
    with torch.inference_mode():
        found = {kind: perplexity(model, tokenizer, texts) for kind, texts in general_texts(args.num_texts).items()}
    return {"verdicts": verdicts, "cut": cut, "perplexity": found, "python": sys.version.split()[0]}


def general_texts(number: int) -> dict[str, list[str]]:
    """English and code that any machine has: docstrings and sources of Python's standard library."""
    import importlib

    from student_cuts import MODULES, docstrings

    names = MODULES.split()[:number]
    code = [inspect.getsource(importlib.import_module(name)) for name in names]
    english = sorted((row.text for row in docstrings()), key=len, reverse=True)[:number]
    return {"english": english, "code": code}


def perplexity(model: Any, tokenizer: Any, texts: Sequence[str], max_tokens: int = 512) -> float:
    """exp of the mean negative log-likelihood per token over all texts, each from its beginning."""
    import torch

    total, count = 0.0, 0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][:max_tokens]
        ids_L = torch.tensor([ids], device=model.device)
        logprobs_LV = model(ids_L).logits[0, :-1].float().log_softmax(-1)
        total -= logprobs_LV.gather(1, ids_L[0, 1:, None]).sum().item()
        count += len(ids) - 1
    return float(torch.tensor(total / count).exp())


def report(args: argparse.Namespace) -> str:
    """The tables of all parts that were run with these seeds."""
    from real_model_tables import accuracy_table, critic_table, forgetting_table

    parts = {arm: [json.loads(path.read_text()) for path in part_paths(args, arm) if path.is_file()] for arm in ARMS}
    parts = {arm: found for arm, found in parts.items() if found}
    tables = [accuracy_table(parts, ARMS, args.rungs), forgetting_table(parts, ARMS, args.rungs), critic_table(parts)]
    return "\n\n".join(table for table in tables if table)


def part_paths(args: argparse.Namespace, arm: str) -> list[Path]:
    return [args.output / f"{arm}-{seed}" / "part.json" for seed in (args.seeds if arm != BEFORE else [0])]


if __name__ == "__main__":
    main()
