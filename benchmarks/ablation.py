"""The ablation of the main job: every arm on the same worlds, equal student sequences, several seeds.

    python benchmarks/ablation.py --output runs/ablation --seeds 0 1 2 --jobs 2

Each seed has its own teacher, teacher outputs, cold start, rollouts and reward. A finished arm is not run again, so the
command can be repeated after an interruption. Settings after `--` go to every arm. Ends with the table in Markdown.
`--arms full shared_critic separate_critic` compares critics; `--arms full learned refreshed` adds a reward model;
`--arms full fixed_anchor little_evidence more_evidence` changes what the anchor follows. A teacher measured greedily
against a student that samples is no arm: that comparison is gone from the code.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

ROOT = Path(__file__).parent.parent
ANCHOR_ONLY = ["--ppo.policy_coef", "0", "--anchor.schedule", "fixed"]
PPO_ARMS: dict[str, tuple[str, list[str]]] = {
    "full": ("full recipe", []),
    "anchor_only": ("anchor only (no reward)", ANCHOR_ONLY),
    "reward_only": ("reward only (no anchor)", ["--anchor.placement", "none"]),
    "seed_recipe": ("seed preset 0.7 x likelihood + 0.3 x check", ["--config", str(ROOT / "configs/seed_recipe.yaml")]),
    "group_mean": (
        "group-mean advantages, no critic (GRPO-style)",
        ["--ppo.advantage", "group_mean", "--ppo.group_size", "4"],
    ),
}
MAKING = threading.Lock()
LEARNED = ["--teacher.num_outputs_per_prompt", "1"]
MORE_ARMS: dict[str, tuple[str, list[str]]] = {
    "shared_critic": ("critic: value head on the student's trunk", ["--ppo.critic", "shared"]),
    "separate_critic": ("critic: a separate trunk", ["--ppo.critic", "separate"]),
    "fixed_anchor": ("anchor of the same strength throughout", ["--anchor.schedule", "fixed"]),
    "little_evidence": ("evidence from 100 teacher samples", ["--teacher.num_evidence_prompts", "100"]),
    "more_evidence": ("evidence from four samples per prompt", ["--teacher.num_evidence_samples", "4"]),
    "learned": ("0.5 x trained reward model + 0.5 x check", LEARNED),
    "refreshed": (
        "the same, the model refreshed every 50 steps",
        [*LEARNED, "--reward_refresh.every_steps", "50", "--reward_refresh.num_steps", "40"],
    ),
}
RIVAL_ARMS = {
    "more_sft": "more SFT, same teacher outputs",
    "logit_kd": "logit KD, same teacher outputs",
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
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{mean(values):.3f} ± {stdev(values) / math.sqrt(len(values)):.3f}"


def table(output: Path, seeds: list[int], arms: list[str]) -> str:
    """One row per arm: accuracies over seeds with standard errors, the paired difference to the full recipe, costs."""
    results = {
        arm: [json.loads((output / f"{arm}-{seed}" / "results.json").read_text()) for seed in seeds] for arm in arms
    }
    tasks = [name for name in results[arms[0]][0]["teacher"] if name != "overall"]
    lines = [
        f"| arm | overall | {' | '.join(tasks)} | gap recovered | full minus arm | student sequences | teacher tokens "
        "written | teacher tokens scored | training, CPU s |",
        "|" + "---|" * (8 + len(tasks)),
    ]
    first = results[arms[0]]
    for key, name in (("teacher", "*teacher*"), ("student_before", "*student before*")):
        cells = [mean_se([r[key][t] for r in first]) for t in ("overall", *tasks)]
        lines.append(f"| {name} | {' | '.join(cells)} | | | | | | |")
    for arm in arms:
        runs = results[arm]
        cells = [mean_se([r["student_after"][t] for r in runs]) for t in ("overall", *tasks)]
        gaps = " / ".join(f"{100 * r['gap_recovered']['overall']:.0f} %" for r in runs)
        lead = ""
        if arm != "full" and "full" in results:
            pairs = zip(results["full"], runs, strict=True)
            lead = mean_se([f["student_after"]["overall"] - r["student_after"]["overall"] for f, r in pairs])
        ledger = {k: mean(r["ledger"][k] for r in runs) for k in runs[0]["ledger"]}
        cpu = mean(sum(r["cpu_seconds"].get(s, 0) for s in ("ppo", "train")) for r in runs)
        name = RIVAL_ARMS[arm] if arm in RIVAL_ARMS else (PPO_ARMS | MORE_ARMS)[arm][0]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {gaps} | {lead} | "
            + " | ".join(f"{ledger[k] / 1000:.1f} k" for k in ledger)
            + f" | {cpu:.0f} |"
        )
    return "\n".join([*lines, "", "(*) spends more teacher tokens than the others: not an equal-budget rival."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--arms", nargs="+", default=[*PPO_ARMS, *RIVAL_ARMS], choices=[*PPO_ARMS, *MORE_ARMS, *RIVAL_ARMS]
    )
    parser.add_argument("--jobs", type=int, default=1, help="arms that run at the same time")
    parser.add_argument("settings", nargs=argparse.REMAINDER, help="after --: settings for every arm")
    arguments = parser.parse_args()
    settings = [word for word in arguments.settings if word != "--"]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        first = [pool.submit(run_arm, arguments.arms[0], seed, arguments.output, settings) for seed in arguments.seeds]
        for future in first:  # the first arm of each seed makes the context that the others share
            future.result()
        rest = [
            pool.submit(run_arm, arm, seed, arguments.output, settings)
            for arm in arguments.arms[1:]
            for seed in arguments.seeds
        ]
        for future in rest:
            future.result()
    text = table(arguments.output, arguments.seeds, arguments.arms)
    (arguments.output / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
