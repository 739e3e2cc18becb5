"""Few labels: gold answers for 1,000 training prompts, none for 12,000. What should score the answers to the latter?

    python benchmarks/few_labels.py --output runs/few_labels --seeds 0 1 2 -- --num_threads 1
    python benchmarks/few_labels.py --output runs/few_labels --seeds 0 --arms learned -- --num_threads 1

All arms share each seed's teacher, cold start, prompts, number of student sequences and anchor; every one but
`anchor_only` has the check on the labelled prompts. A finished arm is not run again, so arms and seeds can be run one
by one, also at the same time once the first has made the caches; `--table_only` prints what is there. `check_all` is
the ceiling: the same prompts, all with gold. The last arms' share is how far they come from anchor only to it.
Run `learned` before `cautious` starts elsewhere: they share the seed's model. The costs of an arm with a reward model
include the model's: its student answers and what the teacher read for it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

from ablation import ANCHOR_ONLY, ROOT, mean_se, run_logged

CONFIG, MODEL_CONFIG = ROOT / "configs" / "few_labels.yaml", ROOT / "configs" / "few_labels_model.yaml"
CHECK = "{fn: task_check, weight: 1.0}"


def beside_the_check(entry: str) -> list[str]:
    """The reward of prompts without gold, by its entry's keys."""
    return ["--rewards", f"[{CHECK}, {{{entry}, weight: 1.0, fallback_for: task_check}}]"]


ARMS: dict[str, tuple[str, list[str]]] = {
    "anchor_only": ("anchor only (no reward)", [*ANCHOR_ONLY, "--rewards", f"[{CHECK}]"]),
    "labelled": ("check on the labelled prompts alone", ["--rewards", f"[{CHECK}]"]),
    "likelihood": ("teacher likelihood", beside_the_check("fn: teacher_likelihood")),
    "bleu": ("BLEU (*)", [*beside_the_check("fn: bleu"), "--teacher.num_outputs_per_prompt", "1"]),
    "learned": ("reward model", []),
    "cautious": ("reward model less its spread", []),
    "check_all": (
        "check on all prompts",
        ["--rewards", f"[{CHECK}]", "--demo.num_labelled_prompts", "13000"],
    ),
}
LEARNED = {"learned": "", "cautious": ", caution: 1.0"}
"""Arms with a reward model, and what they add to its kwargs."""


def run_arm(arm: str, seed: int, output: Path, settings: list[str]) -> None:
    """Runs one arm for one seed, and its reward model first where it has one, unless the results are there."""
    folder = output / f"{arm}-{seed}"
    if (folder / "results.json").is_file():
        return
    common = ["--seed", str(seed), "--cache_dir", str(output / "cache"), *settings]
    rewards = []
    if arm in LEARNED:
        model = output / f"model-{seed}"
        make_model(model, common)
        kwargs = f"kwargs: {{model: {model}, output: correct{LEARNED[arm]}}}"
        rewards = beside_the_check(f"fn: learned, {kwargs}")
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(ROOT / "launch" / "ppo.py"), "--config", str(CONFIG), *ARMS[arm][1], *rewards, *common]
    done = run_logged([*command, "--output_dir", str(folder)], folder)
    print(f"{arm} seed {seed}: {'done' if done else f'FAILED, see {folder}/log.txt'}", flush=True)


def make_model(folder: Path, common: list[str]) -> None:
    """A seed's reward model, from its labelled prompts."""
    if not (folder / "quality.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = [str(ROOT / "launch" / "reward_model.py"), "--config", str(MODEL_CONFIG), *common]
        run_logged([*command, "--output_dir", str(folder)], folder)


def table(results: dict[str, dict[int, dict[str, Any]]]) -> str:
    """By arm and seed, in Markdown: accuracy with its standard error over seeds, the share of the way, and the costs.

    Differences are paired by seed, over the seeds that both arms have.
    """
    lines = [
        "| unlabelled prompts are scored by | seeds | accuracy after | minus anchor only | share of the way | "
        "student sequences | teacher tokens written | scored |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, runs in results.items():
        after = {seed: run["student_after"]["overall"] for seed, run in runs.items()}
        lead = differences(results, arm, "anchor_only")
        whole = differences(results, "check_all", "anchor_only")
        both = sorted(set(lead) & set(whole))
        share = f"{sum(lead[s] for s in both) / sum(whole[s] for s in both):.0%}" if both else "-"
        ledger = {
            name: mean(run["ledger"][name] for run in runs.values()) for name in next(iter(runs.values()))["ledger"]
        }
        cells = [
            ARMS[arm][0],
            " ".join(map(str, sorted(runs))),
            mean_se(list(after.values())),
            mean_se(list(lead.values())) if lead and arm != "anchor_only" else "",
            share if arm != "anchor_only" else "",
            *(f"{value / 1000:.1f} k" for value in ledger.values()),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(
        [*lines, "", "(*) the teacher writes a text for every prompt: more teacher tokens than the others."]
    )


def differences(results: dict[str, dict[int, dict[str, Any]]], arm: str, other: str) -> dict[int, float]:
    """Accuracy of an arm minus that of another, by seed, where both have run."""
    ours, theirs = results.get(arm, {}), results.get(other, {})
    return {
        seed: ours[seed]["student_after"]["overall"] - theirs[seed]["student_after"]["overall"]
        for seed in sorted(set(ours) & set(theirs))
    }


def found(output: Path, seeds: list[int], arms: list[str]) -> dict[str, dict[int, dict[str, Any]]]:
    """The results that are there, by arm and seed."""
    paths = {arm: {seed: output / f"{arm}-{seed}" / "results.json" for seed in seeds} for arm in arms}
    there = {arm: {s: json.loads(p.read_text()) for s, p in by.items() if p.is_file()} for arm, by in paths.items()}
    for arm in LEARNED:
        for seed, run in there.get(arm, {}).items():
            model = json.loads((output / f"model-{seed}" / "results.json").read_text())
            run["ledger"] = added(run["ledger"], model["ledger"])
    return {arm: runs for arm, runs in there.items() if runs}


def added(ledger: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """What a run and its reward model cost together."""
    return {name: value + other[name] for name, value in ledger.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/few_labels"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--table_only", action="store_true", help="run nothing")
    parser.add_argument("settings", nargs=argparse.REMAINDER, help="after --: settings of every run")
    arguments = parser.parse_args()
    settings = [word for word in arguments.settings if word != "--"]
    for seed in [] if arguments.table_only else arguments.seeds:
        for arm in arguments.arms:
            run_arm(arm, seed, arguments.output, settings)
    text = table(found(arguments.output, arguments.seeds, list(ARMS)))
    (arguments.output / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
