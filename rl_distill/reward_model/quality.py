"""How good a reward model is on held-out prompts: numbers, a calibration plot, results.json, report.md, quality.json.

Headline numbers are about the untrained student's outputs alone: the teacher's own are easy to tell and would flatter.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reward_models.audit import spearman
from reward_models.learned import QUALITY_FILE
from reward_models.learned_model import LearnedRewardModel, encode, predict

from ..files import write_atomically
from ..provenance import versions
from .data import Example
from .settings import RewardModelRunConfig

NUM_BINS = 10


@dataclass(frozen=True)
class Predictions:
    """Row by row: the example, the predicted score, the predicted probability of being right (each in 0..1)."""

    examples: list[Example]
    scores: list[float]
    correct: list[float]

    def of(self, source: str, task: str | None = None) -> Predictions:
        """The rows of one source, and of one task if given."""
        keep = [i for i, e in enumerate(self.examples) if e.source == source and task in (None, e.task)]
        return Predictions(
            [self.examples[i] for i in keep], [self.scores[i] for i in keep], [self.correct[i] for i in keep]
        )


def predictions(
    model: LearnedRewardModel, tokenizer: Any, examples: Sequence[Example], *, with_teacher: bool
) -> Predictions:
    """What the model says of the examples, shown the teacher's output or not."""
    rows = [
        encode(tokenizer, e.prompt, e.teacher_output if with_teacher else None, e.candidate, model.config.max_tokens)
        for e in examples
    ]
    return Predictions(list(examples), *predict(model, rows, tokenizer.pad_token_id))


def auc(values: Sequence[float], labels: Sequence[float | None]) -> float | None:
    """Probability that a right answer has the higher value than a wrong one, ties one half.

    Rows without a label are left out; None where there is no right or no wrong answer. (Mann-Whitney's U over pairs.)
    """
    rows = sorted((value, label) for value, label in zip(values, labels, strict=True) if label is not None)
    num_right = sum(label >= 0.5 for _, label in rows)
    num_wrong = len(rows) - num_right
    if not num_right or not num_wrong:
        return None
    won, wrong_below, start = 0.0, 0, 0
    while start < len(rows):
        end = start
        while end < len(rows) and rows[end][0] == rows[start][0]:
            end += 1
        right = sum(label >= 0.5 for _, label in rows[start:end])
        wrong = end - start - right
        won += right * (wrong_below + wrong / 2)
        wrong_below, start = wrong_below + wrong, end
    return won / (num_right * num_wrong)


def bins(predicted: Sequence[float], observed: Sequence[float | None]) -> list[tuple[float, float, int]]:
    """(mean predicted, mean observed, rows) of up to NUM_BINS groups of equal size, by rising prediction."""
    rows = sorted((p, o) for p, o in zip(predicted, observed, strict=True) if o is not None)
    edges = [round(i * len(rows) / NUM_BINS) for i in range(NUM_BINS + 1)]
    groups = [rows[a:b] for a, b in itertools.pairwise(edges) if b > a]
    return [(sum(p for p, _ in g) / len(g), sum(o for _, o in g) / len(g), len(g)) for g in groups]


def calibration_error(groups: Sequence[tuple[float, float, int]]) -> float | None:
    """Mean distance of observed from predicted over the rows of the bins."""
    count = sum(n for _, _, n in groups)
    return sum(abs(p - o) * n for p, o, n in groups) / count if count else None


def measure(found: Predictions, predicts_correctness: bool) -> dict[str, float | int | None]:
    """Spearman with the blended score, AUC of both outputs, calibration errors; None where undefined."""
    scores, verdicts = [e.score for e in found.examples], [e.verdict for e in found.examples]
    rank = spearman(tuple(found.scores), tuple(scores)) if len(scores) > 1 else math.nan
    return {
        "num_examples": len(scores),
        "num_right": sum(verdict == 1.0 for verdict in verdicts),
        "spearman": None if math.isnan(rank) else rank,
        "auc_score": auc(found.scores, verdicts),
        "auc_correct": auc(found.correct, verdicts) if predicts_correctness else None,
        "calibration_error_score": calibration_error(bins(found.scores, scores)),
        "calibration_error_correct": calibration_error(bins(found.correct, verdicts)) if predicts_correctness else None,
    }


def quality(
    config: RewardModelRunConfig, model: LearnedRewardModel, tokenizer: Any, heldout: Sequence[Example]
) -> tuple[dict[str, Any], dict[str, Predictions]]:
    """(what quality.json holds, the student's predictions by view): headline numbers by view, and all by task."""
    predicts_correctness = config.reward_model.objective == "regression"
    result: dict[str, Any] = {
        "predicts_correctness": predicts_correctness,
        "limits": asdict(config.reward_model.quality),
    }
    shown = {}
    for view, with_teacher in (("with_teacher", True), ("without_teacher", False)):
        found = predictions(model, tokenizer, heldout, with_teacher=with_teacher)
        shown[view] = found.of("student")
        tasks = sorted({example.task for example in heldout})
        result[view] = measure(shown[view], predicts_correctness) | {
            "by_task": {task: measure(found.of("student", task), predicts_correctness) for task in tasks},
            "teacher_outputs": measure(found.of("teacher"), predicts_correctness),
        }
    return result, shown


def draw_calibration(shown: dict[str, Predictions], predicts_correctness: bool, path: Path) -> None:
    """Predicted against observed in bins of equal size: the blended score, and the rate of right answers."""
    if importlib.util.find_spec("matplotlib") is None:  # in the extra [report]
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 1 + predicts_correctness, figsize=(5 * (1 + predicts_correctness), 4.5))
    for axes in panels if predicts_correctness else [panels]:
        axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1)
    for view, found in shown.items():
        label = view.replace("_", " ") + "'s output"
        groups = [bins(found.scores, [e.score for e in found.examples])]
        if predicts_correctness:
            groups.append(bins(found.correct, [e.verdict for e in found.examples]))
        for axes, group in zip(panels if predicts_correctness else [panels], groups, strict=True):
            axes.plot([p for p, _, _ in group], [o for _, o, _ in group], marker="o", label=label)
    titles = (("predicted score", "mean blended score"), ("predicted P(right)", "rate of right answers"))
    for axes, (x, y) in zip(panels if predicts_correctness else [panels], titles, strict=False):
        axes.set(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.suptitle("Held-out prompts, outputs of the untrained student", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def table(found: dict[str, Any]) -> str:
    """The held-out numbers in Markdown, a row per view and part of the data."""
    lines = [
        "| answers | teacher's output | rows | right | Spearman | AUC, `score` | AUC, `correct` | calibration error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for view, words in (("with_teacher", "shown"), ("without_teacher", "hidden")):
        parts = {"student": found[view]} | {f"student, {t}": n for t, n in found[view]["by_task"].items()}
        for name, n in (parts | {"teacher": found[view]["teacher_outputs"]}).items():
            keys = ("spearman", "auc_score", "auc_correct", "calibration_error_score")
            numbers = " | ".join("-" if n[key] is None else f"{n[key]:.3f}" for key in keys)
            lines.append(f"| {name} | {words} | {n['num_examples']} | {n['num_right']} | {numbers} |")
    return "\n".join(lines)


def write_report(
    config: RewardModelRunConfig,
    found: dict[str, Any],
    shown: dict[str, Predictions],
    data: dict[str, Any],
    command: str,
) -> None:
    """quality.json (what `learned` reads), results.json, report.md and calibration.png in the model's folder."""
    folder = Path(config.output_dir)
    draw_calibration(shown, found["predicts_correctness"], folder / "calibration.png")
    results = {"quality": found, **data, "config": config.to_dict(), "versions": versions()}
    write_atomically(folder / "results.json", json.dumps(results, indent=2) + "\n")
    limits = found["limits"]
    seconds = "\n".join(f"| {name} | {value:.1f} |" for name, value in data["wall_seconds"].items())
    drawn = (folder / "calibration.png").is_file()
    calibration = "![calibration](calibration.png)" if drawn else "The calibration plot needs `rl_distill[report]`."
    write_atomically(
        folder / "report.md",
        f"""# Reward model

Objective: {config.reward_model.objective}. Trained on {data["num_train"]} answers to {data["num_train_prompts"]}
prompts, measured on {data["num_heldout"]} answers to {data["num_heldout_prompts"]} held-out prompts (split seed
{config.split_seed}); {data["num_unscored"]} answers had no score. Reproduce with `{command}`.

{table(found)}

Spearman is with the blended score, AUC tells right from wrong answers. `learned` refuses this model in PPO when, on
the student's answers, Spearman is below {limits["spearman"]} or AUC below {limits["auc"]} (with the teacher's output),
or AUC below {limits["auc_without_teacher"]} where a batch has no teacher output; `force: true` overrules.

{calibration}

## Where the time went

| stage | wall seconds |
|---|---|
{seconds}
""",
    )
    write_atomically(folder / QUALITY_FILE, json.dumps(found, indent=2) + "\n")
