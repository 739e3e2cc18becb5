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
from typing import TYPE_CHECKING, Any

from reward_models.audit import spearman
from reward_models.learned import QUALITY_FILE, PoorQualityError, check_probes
from reward_models.learned_model import LearnedRewardModel

from ..config import ConfigError
from ..files import write_atomically
from ..provenance import versions
from .examples import Example
from .probes import probe_results
from .settings import RewardModelRunConfig
from .uncertainty import judged, spreads_of_probes, uncertainty
from .views import View, views_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NUM_BINS = 10


@dataclass(frozen=True)
class Predictions:
    """Row by row: the example, the predicted score, the predicted probability of being right (each in 0..1), and the
    leverage, of which the spread is made.
    """

    examples: list[Example]
    scores: list[float]
    correct: list[float]
    leverages: list[float]

    def of(self, source: str, task: str | None = None) -> Predictions:
        """The rows of one source, and of one task if given."""
        keep = [i for i, e in enumerate(self.examples) if e.source == source and task in (None, e.task)]
        numbers = (self.scores, self.correct, self.leverages)
        return Predictions([self.examples[i] for i in keep], *([column[i] for i in keep] for column in numbers))


def predictions(
    model: LearnedRewardModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], view: View
) -> Predictions:
    """What the model says of the examples, shown of the teacher what the view shows."""
    found = judged(model, tokenizer, examples, view)
    return Predictions(list(examples), found.scores, found.correct, found.leverages)


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


def measure(predictions: Predictions, predicts_correctness: bool) -> dict[str, float | int | None]:
    """Spearman with the blended score, AUC of both outputs, calibration errors; None where undefined."""
    scores, verdicts = [e.score for e in predictions.examples], [e.verdict for e in predictions.examples]
    rank = spearman(tuple(predictions.scores), tuple(scores)) if len(scores) > 1 else math.nan
    return {
        "num_examples": len(scores),
        "num_right": sum(verdict == 1.0 for verdict in verdicts),
        "spearman": None if math.isnan(rank) else rank,
        "auc_score": auc(predictions.scores, verdicts),
        "auc_correct": auc(predictions.correct, verdicts) if predicts_correctness else None,
        "calibration_error_score": calibration_error(bins(predictions.scores, scores)),
        "calibration_error_correct": calibration_error(bins(predictions.correct, verdicts))
        if predicts_correctness
        else None,
    }


def quality(
    config: RewardModelRunConfig,
    model: LearnedRewardModel,
    tokenizer: PreTrainedTokenizerBase,
    heldout: Sequence[Example],
) -> tuple[dict[str, Any], dict[str, Predictions]]:
    """(what quality.json holds, the student's predictions by view): headline numbers by view, and all by task."""
    predicts_correctness = config.reward_model.objective == "regression"
    noise = model.config.noise or {}
    result: dict[str, Any] = {
        "predicts_correctness": predicts_correctness,
        "readings": config.reward_model.readings,
        "temperature": config.generation.temperature if config.reward_model.readings else None,
        "spread_fitted": bool(noise),
        "forced": False,
        "limits": asdict(config.reward_model.quality),
        "probes": {},
    }
    shown = {}
    for view in views_of(config):
        found = predictions(model, tokenizer, heldout, view)
        shown[view.name] = student = found.of("student")
        tasks = sorted({example.task for example in heldout})
        result[view.name] = measure(student, predicts_correctness) | {
            "by_task": {task: measure(found.of("student", task), predicts_correctness) for task in tasks},
            "teacher_outputs": measure(found.of("teacher"), predicts_correctness),
        }
        result["probes"][view.name] = probe_results(
            found.examples, found.scores, found.correct, with_teacher=view.with_teacher
        )
        if view.name in noise:
            result[view.name]["uncertainty"] = _uncertainty(found, student, noise[view.name], predicts_correctness)
    return result, shown


def _uncertainty(
    predictions: Predictions, student: Predictions, noise: Sequence[float], predicts_correctness: bool
) -> dict[str, Any]:
    """Of each output, on the student's answers; and the mean spread of the cheats."""
    known = [i for i, example in enumerate(student.examples) if example.verdict is not None]
    verdicts = [student.examples[i].verdict or 0.0 for i in known]
    score = uncertainty(student.scores, [e.score for e in student.examples], student.leverages, noise[0])
    result = {
        "score": score | {"spread_of_probes": spreads_of_probes(predictions.examples, predictions.leverages, noise[0])}
    }
    if predicts_correctness:
        leverages = [student.leverages[i] for i in known]
        result["correct"] = uncertainty([student.correct[i] for i in known], verdicts, leverages, noise[1])
        result["correct"] |= {
            "spread_of_probes": spreads_of_probes(predictions.examples, predictions.leverages, noise[1])
        }
    return result


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
        label = view.replace("_", " ")
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


def table(quality: dict[str, Any]) -> str:
    """The held-out numbers in Markdown, a row per view and part of the data."""
    lines = [
        "| answers | teacher | rows | right | Spearman | AUC, `score` | AUC, `correct` | calibration error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for view in (view for view in quality["probes"] if view in quality):
        words = view.replace("_", " ")
        parts = {"student": quality[view]} | {f"student, {t}": n for t, n in quality[view]["by_task"].items()}
        for name, n in (parts | {"teacher": quality[view]["teacher_outputs"]}).items():
            keys = ("spearman", "auc_score", "auc_correct", "calibration_error_score")
            numbers = " | ".join("-" if n[key] is None else f"{n[key]:.3f}" for key in keys)
            lines.append(f"| {name} | {words} | {n['num_examples']} | {n['num_right']} | {numbers} |")
    return "\n".join(lines)


def probe_table(quality: dict[str, Any]) -> str:
    """The cheats in Markdown: how often each outranks an honest right answer to its prompt, and its mean score."""
    lines = [
        "| cheat | teacher | pairs | wins by `score` | by `correct` | by the blend itself | mean `score` |",
        "|---|---|---|---|---|---|---|",
    ]
    for view, kinds in quality["probes"].items():
        for kind, n in kinds.items():
            keys = ("wins_score", "wins_correct", "wins_blend", "mean_score")
            numbers = " | ".join("-" if n[key] is None else f"{n[key]:.3f}" for key in keys)
            lines.append(f"| {kind.replace('_', ' ')} | {view.replace('_', ' ')} | {n['num_pairs']} | {numbers} |")
    return "\n".join(lines)


def uncertainty_table(quality: dict[str, Any]) -> str:
    """Coverage of the predictive intervals and the size of the spread, in Markdown."""
    if not quality["spread_fitted"]:
        return "Not fitted (`reward_model.calibration_share: 0`, or no answer was kept aside)."
    lines = [
        "| output | teacher | within 50 % | within 80 % | within 95 % | spread: median | 99 % | of the cheats |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for view in (view for view in quality["probes"] if "uncertainty" in quality[view]):
        for output, n in quality[view]["uncertainty"].items():
            numbers = [*n["coverage"].values(), n["spread"].get("0.5"), n["spread"].get("0.99"), n["spread_of_probes"]]
            cells = " | ".join("-" if number is None else f"{number:.3f}" for number in numbers)
            lines.append(f"| `{output}` | {view.replace('_', ' ')} | {cells} |")
    return "\n".join(lines)


def write_report(
    config: RewardModelRunConfig,
    quality: dict[str, Any],
    shown: dict[str, Predictions],
    data: dict[str, Any],
    command: str,
) -> None:
    """results.json, report.md and calibration.png in the model's folder."""
    folder = Path(config.output_dir)
    draw_calibration(shown, quality["predicts_correctness"], folder / "calibration.png")
    results = {"quality": quality, **data, "config": config.to_dict(), "versions": versions()}
    write_atomically(folder / "results.json", json.dumps(results, indent=2) + "\n")
    limits = quality["limits"]
    seconds = "\n".join(f"| {name} | {value:.1f} |" for name, value in data["wall_seconds"].items())
    drawn = (folder / "calibration.png").is_file()
    calibration = "![calibration](calibration.png)" if drawn else "The calibration plot needs `rl_distill[report]`."
    write_atomically(
        folder / "report.md",
        f"""# Reward model

Objective: {config.reward_model.objective}. Trained on {data["num_train"]} answers to {data["num_train_prompts"]}
prompts, measured on {data["num_heldout"]} answers to {data["num_heldout_prompts"]} held-out prompts (split seed
{config.split_seed}); {data["num_unscored"]} answers had no score. Reproduce with `{command}`.

{table(quality)}

Spearman is with the blended score, AUC tells right from wrong answers. `learned` refuses this model in PPO when, on
the student's answers, Spearman is below {limits["spearman"]} or AUC below {limits["auc"]} (with the teacher's output),
or AUC below {limits["auc_without_teacher"]} where a batch has no teacher output, or when, shown what a batch
has of the teacher, a cheat outranks honest right answers in more than {limits["probe_wins"]:.0%} of the
pairs; `force: true` overrules.

{calibration}

## Cheats

{probe_table(quality)}

## What it knows of its errors

{uncertainty_table(quality)}

## Where the time went

| stage | wall seconds |
|---|---|
{seconds}
""",
    )


def admit(config: RewardModelRunConfig, quality: dict[str, Any]) -> None:
    """Writes quality.json, without which `learned` takes the folder for no model. Raises ConfigError for a model that
    cheats game in each of its outputs with all that it can be shown; reward_model.force keeps it, marked.
    """
    outputs = ("score", "correct") if quality["predicts_correctness"] else ("score",)
    errors = []
    for output in outputs:
        try:
            check_probes(quality, output, views_of(config)[0].name, folder=config.output_dir)
        except PoorQualityError as error:
            errors.append(str(error))
    if len(errors) == len(outputs):
        if not config.reward_model.force:
            told = errors[0].removeprefix("learned: ")
            raise ConfigError(told.replace("set force: true under kwargs", "keep it with reward_model.force: true"))
        quality["forced"] = True
    write_atomically(Path(config.output_dir) / QUALITY_FILE, json.dumps(quality, indent=2) + "\n")
