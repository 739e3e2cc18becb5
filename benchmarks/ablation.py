"""The ablation of the main job: every arm on the same worlds, equal student sequences, several seeds.

    python benchmarks/ablation.py --output runs/ablation --seeds 0 1 2 --jobs 2

Each seed has its own teacher, teacher outputs, cold start, rollouts and reward. A finished arm is not run again, so the
command can be repeated after an interruption. Settings after `--` go to every arm. Ends with the table in Markdown.
`--arms full shared_critic separate_critic` compares critics; `--arms full learned refreshed` adds a reward model;
`--arms full fixed_anchor little_evidence more_evidence` changes what the anchor follows. A teacher measured greedily
against a student that samples is no arm: that comparison is gone from the code. `--table_only` runs nothing and makes
the table from the finished runs, whichever those are. A weak start, where samples of the student hardly ever pass:

    python benchmarks/ablation.py --output runs/weak_start --seeds 0 1 2 3 4 \\
        --arms full shared_critic anchor_only expert_iteration group_mean \\
        -- --demo.num_teacher_outputs 150 --demo.student_sft.num_steps 120
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).parent.parent
ANCHOR_ONLY = ["--ppo.policy_coef", "0", "--anchor.schedule", "fixed"]
REWARD_ONLY = ["--anchor.placement", "none"]
PPO_ARMS: dict[str, tuple[str, list[str]]] = {
    "full": ("full recipe", []),
    "anchor_only": ("anchor only (no reward)", ANCHOR_ONLY),
    "reward_only": ("reward only (no anchor)", REWARD_ONLY),
    "seed_recipe": ("seed preset 0.7 x likelihood + 0.3 x check", ["--config", str(ROOT / "configs/seed_recipe.yaml")]),
    "group_mean": (
        "group-mean advantages, no critic (GRPO-style)",
        ["--ppo.advantage", "group_mean", "--ppo.group_size", "4"],
    ),
}
Results = dict[str, Any]
MAKING = threading.Lock()
LEARNED = ["--teacher.num_outputs_per_prompt", "1"]
MORE_ARMS: dict[str, tuple[str, list[str]]] = {
    "shared_critic": ("critic: value head on the student's trunk", ["--ppo.critic", "shared"]),
    "separate_critic": ("critic: a separate trunk", ["--ppo.critic", "separate"]),
    "fixed_anchor": ("anchor of the same strength throughout", ["--anchor.schedule", "fixed"]),
    "little_evidence": ("evidence from 100 teacher samples", ["--teacher.num_evidence_prompts", "100"]),
    "more_evidence": ("evidence from four samples per prompt", ["--teacher.num_evidence_samples", "4"]),
    "group_mean_8": (
        "group-mean advantages of 8, no critic",
        ["--ppo.advantage", "group_mean", "--ppo.group_size", "8"],
    ),
    "two_epochs": ("two PPO epochs per rollout", ["--ppo.num_epochs", "2"]),
    "reward_only_1e-4": ("reward only, learning rate 1e-4", [*REWARD_ONLY, "--ppo.learning_rate", "1e-4"]),
    "reward_only_3e-5": ("reward only, learning rate 3e-5", [*REWARD_ONLY, "--ppo.learning_rate", "3e-5"]),
    "teacher_right": (
        "(*) evidence anchor only on prompts the teacher solves",
        ["--anchor.prompts", "teacher_right"],
    ),
    "routed": (
        "(*) teacher-gated routing: fixed anchor where the teacher solves the prompt, else reward",
        ["--anchor.prompts", "routed", "--anchor.schedule", "fixed"],
    ),
    "verified_start": (
        "full recipe from a cold start on the teacher's verified texts alone",
        ["--demo.only_verified", "true"],
    ),
    "learned": ("0.5 x trained reward model + 0.5 x check", LEARNED),
    "refreshed": (
        "the same, the model refreshed every 50 steps",
        [*LEARNED, "--reward_refresh.every_steps", "50", "--reward_refresh.num_steps", "40"],
    ),
}
RIVAL_ARMS = {
    "more_sft": "more SFT, same teacher outputs",
    "logit_kd": "logit KD, same teacher outputs",
    "expert_iteration": "expert iteration: SFT on the student's own verified samples",
    "labelled_sft": "(*) SFT on RL prompts labelled by the teacher, all",
    "rejection_sft": "(*) SFT on RL prompts labelled by the teacher, verified only",
}


def run_arm(arm: str, seed: int, output: Path, settings: list[str]) -> None:
    """Runs one arm for one seed in a process of its own, unless its results are there."""
    folder = output / f"{arm}-{seed}"
    if (folder / "results.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    common = ["--seed", str(seed), "--output_dir", str(folder), "--cache_dir", str(output / "cache"), *settings]
    if arm in RIVAL_ARMS:
        command = [str(ROOT / "benchmarks" / "rivals.py"), "--arm", arm, *common]
    else:
        command = [str(ROOT / "launch" / "ppo.py"), *(PPO_ARMS | MORE_ARMS)[arm][1], *common]
    if arm in ("learned", "refreshed"):
        model = output / f"learned-{seed}" / "reward_model"
        with MAKING:  # whichever of a seed's two arms comes first
            make_reward_model(model, common)
        learned = f"{{fn: learned, weight: 0.5, kwargs: {{model: {model}}}}}"
        command += ["--rewards", f"[{{fn: task_check, weight: 0.5}}, {learned}]"]
    done = run_logged(command, folder)
    print(f"{arm} seed {seed}: {'done' if done else f'FAILED, see {folder}/log.txt'}", flush=True)


def make_reward_model(folder: Path, common: list[str]) -> None:
    if not (folder / "quality.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        run_logged([str(ROOT / "launch" / "reward_model.py"), *common, "--output_dir", str(folder)], folder)


def run_logged(command: list[str], folder: Path) -> bool:
    """Whether the script ended well; what it says goes to log.txt in the folder."""
    with (folder / "log.txt").open("w") as log:
        return subprocess.run([sys.executable, *command], stdout=log, stderr=log, check=False).returncode == 0


def mean_se(values: list[float]) -> str:
    """The mean with its standard error; empty where there is nothing to take a mean of."""
    if len(values) < 2:
        return "".join(f"{value:.3f}" for value in values)
    return f"{mean(values):.3f} ± {stdev(values) / math.sqrt(len(values)):.3f}"


def finished_runs(output: Path, seeds: list[int], arms: list[str]) -> dict[str, dict[int, Results]]:
    """The results by arm and seed of the runs that are there; arms without any are left out."""
    found: dict[str, dict[int, Results]] = {arm: {} for arm in arms}
    for arm in arms:
        for seed in seeds:
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):  # not run, or being written
                found[arm][seed] = json.loads((output / f"{arm}-{seed}" / "results.json").read_text())
    return {arm: runs for arm, runs in found.items() if runs}


def arm_name(arm: str) -> str:
    return RIVAL_ARMS[arm] if arm in RIVAL_ARMS else (PPO_ARMS | MORE_ARMS)[arm][0]


def row_of(arm: str, results: dict[str, dict[int, Results]], names: list[str], num_seeds: int) -> str:
    """The arm's row of the table; its difference to the full recipe is over the seeds that both have."""
    runs = results[arm]
    accuracies = [mean_se([r["student_after"][name] for r in runs.values()]) for name in names]
    gaps = [r["gap_recovered"]["overall"] for r in runs.values()]
    full = results.get("full", {}) if arm != "full" else {}
    pairs = [(full[seed], run) for seed, run in runs.items() if seed in full]
    lead = mean_se([f["student_after"]["overall"] - r["student_after"]["overall"] for f, r in pairs])
    spent = [mean(r["ledger"][name] for r in runs.values()) / 1000 for name in next(iter(runs.values()))["ledger"]]
    cpu = mean(sum(r["cpu_seconds"].get(s, 0) for s in ("ppo", "train")) for r in runs.values())
    name = arm_name(arm) + ("" if len(runs) == num_seeds else f" ({len(runs)} of {num_seeds} seeds)")
    recovered = " / ".join("no gap" if gap is None else f"{100 * gap:.0f} %" for gap in gaps)
    cells = [name, *accuracies, recovered, lead, *(f"{number:.1f} k" for number in spent), f"{cpu:.0f}"]
    return f"| {' | '.join(cells)} |"


def table(output: Path, seeds: list[int], arms: list[str]) -> str:
    """One row per arm: accuracies over seeds with standard errors, the paired difference to the full recipe, costs.

    Runs that are not finished are left out and named below the table.
    """
    results = finished_runs(output, seeds, arms)
    lacking = {arm: [str(seed) for seed in seeds if seed not in results.get(arm, {})] for arm in arms}
    notes = [f"Not finished: {arm}, seeds {', '.join(missing)}." for arm, missing in lacking.items() if missing]
    if not results:
        return "\n".join([f"No finished run in {output}.", *notes])
    by_seed = {seed: run for runs in reversed(results.values()) for seed, run in runs.items()}
    first = [by_seed[seed] for seed in seeds if seed in by_seed]  # of each seed its first arm
    tasks = [name for name in first[0]["teacher"] if name != "overall"]
    names = ["overall", *tasks]
    lines = [
        f"| arm | overall | {' | '.join(tasks)} | gap recovered | full minus arm | student sequences | teacher tokens "
        "written | teacher tokens scored | training, CPU s |",
        "|" + "---|" * (8 + len(tasks)),
    ]
    for key, title in (("teacher", "*teacher*"), ("student_before", "*student before*")):
        cells = [mean_se([run[key][name] for run in first]) for name in names]
        lines.append(f"| {title} | {' | '.join(cells)} | | | | | | |")
    lines += [row_of(arm, results, names, len(seeds)) for arm in results]
    return "\n".join([*lines, "", "(*) spends more teacher tokens than the others: not an equal-budget rival.", *notes])


def run_all(arms: list[str], seeds: list[int], output: Path, settings: list[str], jobs: int) -> None:
    """Every arm for every seed, `jobs` at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        first = [pool.submit(run_arm, arms[0], seed, output, settings) for seed in seeds]
        for future in first:  # the first arm of each seed makes the context that the others share
            future.result()
        rest = [pool.submit(run_arm, arm, seed, output, settings) for arm in arms[1:] for seed in seeds]
        for future in rest:
            future.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--arms", nargs="+", default=[*PPO_ARMS, *RIVAL_ARMS], choices=[*PPO_ARMS, *MORE_ARMS, *RIVAL_ARMS]
    )
    parser.add_argument("--jobs", type=int, default=1, help="arms that run at the same time")
    parser.add_argument("--table_only", action="store_true", help="run nothing; the table of the finished runs")
    parser.add_argument("settings", nargs=argparse.REMAINDER, help="after --: settings for every arm")
    arguments = parser.parse_args()
    settings = [word for word in arguments.settings if word != "--"]
    if not arguments.table_only:
        run_all(arguments.arms, arguments.seeds, arguments.output, settings, arguments.jobs)
    text = table(arguments.output, arguments.seeds, arguments.arms)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
