"""Many tasks on the demo's world: which sampling, what replay keeps, and what a mined round is worth.

    python benchmarks/many_tasks.py --output runs/many_tasks --seeds 0 1 2 -- --num_threads 1
    python benchmarks/many_tasks.py --output runs/many_tasks --seeds 0 --parts sampling -- --num_threads 1

sampling: PPO on both tasks (70 % word problems, 30 % short functions), prompts drawn by fixed shares, by weakness, by
learning progress. replay: PPO on word problems alone, with and without 30 % of the rows on prompts of the other task
under the anchor alone; what is forgotten is measured on that other task. rounds: a second round with a fifth of its
prompts from the errors of the first, and without. Every arm of a part has the same start, number of sequences and
held-out problems. What is finished is not run again; `--table_only` prints what is there.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from ablation import ROOT, mean_se, run_logged

from rl_distill.config import DemoConfig, load_config
from rl_distill.demo.models import make_splits
from rl_distill.evals.statistics import paired_bootstrap
from rl_distill.files import read_jsonl, write_atomically
from rl_distill.types import Problem

PARTS = {
    "sampling": ("fixed", "weak_tasks", "learning_progress"),
    "replay": ("math_alone", "math_with_replay"),
    "rounds": ("rounds_without", "rounds_mined"),
}
REPLAY_SHARE, MINED_SHARE = 0.3, 0.2
NGRAM = 60
"""Words: the demo's problems come from templates, which share shorter runs of words with every test problem."""


def run_part(part: str, seed: int, output: Path, steps: int, settings: list[str]) -> None:
    """Runs the arms of a part that are not there yet; `fixed` of the sampling part makes every seed's models."""
    common = ["--seed", str(seed), "--cache_dir", str(output / f"cache-{seed}"), "--ppo.num_steps", str(steps)]
    common += ["--evaluation.every_steps", str(steps), *settings]
    for arm in PARTS["sampling"] if part == "sampling" else ("fixed",):
        command = [str(ROOT / "launch" / "ppo.py"), "--config", "demo", "--sampling.kind", arm, *common]
        run_arm(command, output / f"{arm}-{seed}")
    if part == "sampling":
        return
    world = as_files(output / f"world-{seed}", output / f"fixed-{seed}", output / f"cache-{seed}")
    if part == "replay":
        for arm in PARTS["replay"]:
            path = replay_config(world, arm)
            run_arm([str(ROOT / "launch" / "ppo.py"), "--config", str(path)], output / f"{arm}-{seed}")
        return
    for arm in PARTS["rounds"]:
        run_rounds(world, output, arm, seed)


def run_arm(command: list[str], folder: Path) -> None:
    """An ordinary run into the folder, unless it is there."""
    if not (folder / "results.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        done = run_logged([*command, "--output_dir", str(folder)], folder)
        print(f"{folder.name}: {'done' if done else f'FAILED, see {folder}/log.txt'}", flush=True)


def as_files(folder: Path, first: Path, cache: Path) -> Path:
    """The world of a seed as files: problems of each task, the held-out test, and a config with all settings stated."""
    settings = json.loads((first / "results.json").read_text())["config"]
    splits = make_splits(load_config("configs/demo.yaml").demo or DemoConfig(), settings["seed"])
    folder.mkdir(parents=True, exist_ok=True)
    for task in ("math", "code"):
        write_rows(folder / f"{task}.jsonl", [p for p in splits.train if p.task == task])
    for name in ("train", "validation", "test"):
        write_rows(folder / f"{name}.jsonl", getattr(splits, name))
    (teacher,), (student,) = (
        [path for path in cache.glob(f"{kind}-*") if path.is_dir() and path.suffix != ".tmp"]
        for kind in ("teacher", "student")
    )
    settings |= {"demo": None, "output_dir": None, "cache_dir": None, "chosen": {}}
    settings["student"]["model"], settings["teacher"]["model"] = str(student), str(teacher)
    settings["teacher"] |= {"dtype": "float32", "num_evidence_prompts": 1024}
    settings["data"] |= {"validation": str(folder / "validation.jsonl"), "test": str(folder / "test.jsonl")}
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    return folder


def write_rows(path: Path, problems: Sequence[Problem]) -> None:
    rows = [{"prompt": p.prompt, "task": p.task, "solution": p.solution, **p.columns} for p in problems]
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


def config_of(world: Path, name: str, **data: Any) -> Path:
    settings = yaml.safe_load((world / "run.yaml").read_text())
    settings["data"] |= data
    settings.pop("output_dir"), settings.pop("cache_dir")
    path = world / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def replay_config(world: Path, arm: str) -> Path:
    entries = [{"train": str(world / "math.jsonl"), "task": "math", "share": 1.0}]
    if arm == "math_with_replay":
        replay = {"train": str(world / "code.jsonl"), "task": "code", "share": REPLAY_SHARE, "anchor_only": True}
        entries = [entries[0] | {"share": 1 - REPLAY_SHARE}, replay]
    return config_of(world, arm, mixture=entries)


def run_rounds(world: Path, output: Path, arm: str, seed: int) -> None:
    """Two rounds; both arms have one first round, which is copied as it does not depend on the pool."""
    folder, other = output / f"{arm}-{seed}", output / f"{PARTS['rounds'][0]}-{seed}"
    share = MINED_SHARE if arm == "rounds_mined" else 0.0
    if arm == "rounds_mined" and not (folder / "round_1").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("problems", "round_1"):
            shutil.copytree(other / name, folder / name)
    folder.mkdir(parents=True, exist_ok=True)
    words = ["--config", str(config_of(world, arm)), "--problems", str(world / "train.jsonl"), "--rounds", "2"]
    words += ["--share", str(share), "--ngram", str(NGRAM), "--output_dir", str(folder)]
    done = run_logged(["-m", "rl_distill.cli", "rounds", *words], folder)
    print(f"{folder.name}: {'done' if done else f'FAILED, see {folder}/log.txt'}", flush=True)


def grades(folder: Path, stage: str, task: str) -> list[float]:
    """Of the held-out problems of a task, in their order; an answer without a grade counts as wrong here."""
    found = [r for r in read_jsonl(folder / "evaluations.jsonl") if r["stage"] == stage]
    return [r["grade"] or 0.0 for r in found if task in ("overall", r["task"])]


def place(output: Path, arm: str, seed: int) -> Path:
    folder = output / f"{arm}-{seed}"
    return folder / "round_2" if arm.startswith("rounds_") else folder


def table(output: Path, part: str, seeds: Sequence[int]) -> str:
    """By arm and task: accuracy over seeds and the paired difference from the first arm of the part."""
    lines = ["| arm | task | seeds | start | after | minus the first arm, by seed (95 % interval) |", "|" + "---|" * 6]
    first = PARTS[part][0]
    for arm in PARTS[part]:
        there = [seed for seed in seeds if (place(output, arm, seed) / "results.json").is_file()]
        for task in ("math", "code", "overall") if there else ():
            before, after = (
                [sum(g) / len(g) for g in (grades(place(output, arm, s), stage, task) for s in there)]
                for stage in ("before", "after")
            )
            pairs = [seed for seed in there if (place(output, first, seed) / "results.json").is_file()]
            told = "" if arm == first else ", ".join(difference(output, arm, first, seed, task) for seed in pairs)
            seeds_told = " ".join(map(str, there))
            lines.append(f"| {arm} | {task} | {seeds_told} | {mean_se(before)} | {mean_se(after)} | {told} |")
    return "\n".join(lines)


def difference(output: Path, arm: str, first: str, seed: int, task: str) -> str:
    ours, theirs = (grades(place(output, name, seed), "after", task) for name in (arm, first))
    found = paired_bootstrap(ours, theirs)
    return f"{100 * found.difference:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def forgetting(output: Path, seeds: Sequence[int]) -> str:
    """Perplexity of the other task's reference solutions and the KL to the teacher there, per token."""
    lines = ["| student | seed | perplexity | KL(teacher to student) | KL(student to teacher) |", "|" + "---|" * 5]
    for seed in seeds:
        world = output / f"world-{seed}"
        for arm in ("start", *PARTS["replay"]):
            folder = output / f"{arm}-{seed}" / "student"
            if arm == "start" and (world / "run.yaml").is_file():
                folder = Path(yaml.safe_load((world / "run.yaml").read_text())["student"]["model"])
            if (folder / "config.json").is_file():
                found = measured(folder, world)
                numbers = " | ".join(f"{found[name]:.4f}" for name in ("perplexity", "forward_kl", "reverse_kl"))
                lines.append(f"| {arm} | {seed} | {numbers} |")
    return "\n".join(lines)


def measured(student: Path, world: Path) -> dict[str, float]:
    """heldout_metrics on the code problems of the test."""
    from transformers import AutoTokenizer

    from rl_distill.distill.examples import Example
    from rl_distill.distill.heldout import heldout_metrics
    from rl_distill.models.loading import load
    from rl_distill.teachers.colocated import make_teacher

    settings = yaml.safe_load((world / "run.yaml").read_text())
    tokenizer = AutoTokenizer.from_pretrained(student)
    config = load_config(replay_config(world, "math_alone"))
    teacher = make_teacher(config, load(settings["teacher"]["model"])[0], tokenizer)
    rows = [row for row in read_jsonl(world / "test.jsonl") if row["task"] == "code"]
    ids = [[tokenizer(row[name])["input_ids"] for name in ("prompt", "solution")] for row in rows]
    examples = [Example("code", prompt, [*solution, tokenizer.eos_token_id]) for prompt, solution in ids]
    return heldout_metrics(load(student)[0], teacher, examples, pad_token_id=tokenizer.pad_token_id)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/many_tasks"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--steps", type=int, default=60, help="PPO steps of every run")
    parser.add_argument("--table_only", action="store_true", help="run nothing")
    parser.add_argument("settings", nargs=argparse.REMAINDER, help="after --: settings of every run")
    arguments = parser.parse_args()
    output, settings = arguments.output, [word for word in arguments.settings if word != "--"]
    output.mkdir(parents=True, exist_ok=True)
    for seed in [] if arguments.table_only else arguments.seeds:
        for part in arguments.parts:
            run_part(part, seed, output, arguments.steps, settings)
    texts = [f"## {part}\n\n{table(output, part, arguments.seeds)}" for part in PARTS]
    texts.append(f"## replay: what is forgotten on the other task\n\n{forgetting(output, arguments.seeds)}")
    (output / "table.md").write_text("\n\n".join(texts) + "\n")
    print("\n\n".join(texts))


if __name__ == "__main__":
    main()
