"""The trained reward model as a reward function: `{fn: learned, weight: 0.5, kwargs: {model: runs/reward_model}}`.

It may assume a folder that launch/reward_model.py wrote, with `quality.json` beside the weights. Imports no torch: the
model is loaded by the first batch, once per process. It will not score with a model that failed its own held-out test.
"""

from __future__ import annotations

import functools
import json
import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .base import Messages, text_of

QUALITY_FILE = "quality.json"
_loading = threading.Lock()


class PoorQualityError(ValueError):
    """The model's held-out numbers are under the limits stored with it."""


@dataclass(frozen=True)
class Use:
    """How a model's outputs become scores; see `learned`."""

    output: str
    caution: float
    abstain_above: float | None
    batch_size: int
    device: str | None


def learned(
    model: str,
    output: str = "score",
    force: bool = False,
    batch_size: int = 64,
    device: str | None = None,
    caution: float = 0.0,
    abstain_above: float | None = None,
) -> Callable[..., list[float | None]]:
    """The reward function of a trained model: scores in 0..1, with or without the column `teacher_output`.

    `output`: "score" predicts the blended reward it was trained on, "correct" the probability of a right answer. What
    comes back is the prediction less `caution` times its spread, and None where the spread is above `abstain_above`.
    Raises ValueError on a folder without a model, PoorQualityError under the model's stored limits unless `force`.
    """
    folder, quality = Path(model).expanduser(), quality_of(model)
    if output not in ("score", "correct"):
        raise ValueError(f"learned: output is score or correct, not {output!r}")
    if output == "correct" and not quality["predicts_correctness"]:
        raise ValueError(f"learned: {model!r} was trained on preferences alone; it has no output `correct`")
    _check_uncertainty(quality, caution, abstain_above, model)
    shows_teacher, reads = "with_teacher" in quality, quality.get("readings", False)
    if not force:
        check_quality(quality, output, with_teacher=shows_teacher, with_readings=reads, folder=model)
        check_probes(quality, output, view_of(shows_teacher, reads, reads), folder=model)
    use = Use(output, caution, abstain_above, batch_size, device)

    def learned_reward(*, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        nothing = [None] * len(completions)
        teacher_outputs = (
            [_first(item) for item in columns.get("teacher_output") or nothing] if shows_teacher else nothing
        )
        pairs = zip(columns.get("teacher_logprobs") or nothing, columns.get("teacher_entropy") or nothing, strict=True)
        readings = [zip_readings(*pair) for pair in pairs] if reads else nothing
        if not force:
            for seen in {(t is not None, r is not None) for t, r in zip(teacher_outputs, readings, strict=True)}:
                check_quality(quality, output, with_teacher=seen[0], with_readings=seen[1], folder=model)
                check_probes(quality, output, view_of(*seen, reads), folder=model)
        if not completions:
            return []
        texts = columns.get("rendered_prompt") or prompts  # the very text that it was trained on, where it is known
        return _scores(folder, list(zip(texts, completions, teacher_outputs, readings, strict=True)), use, columns)

    return learned_reward if not reads else _waiting_for_readings(learned_reward)


def quality_of(model: str) -> dict[str, Any]:
    """What the model's folder says of it; ValueError on a folder without a model."""
    path = Path(model).expanduser() / QUALITY_FILE
    if not path.is_file():
        raise ValueError(f"learned: {model!r} is no reward model (no {QUALITY_FILE}); launch/reward_model.py makes one")
    return json.loads(path.read_text())


def _waiting_for_readings(reward: Callable[..., list[float | None]]) -> Callable[..., list[float | None]]:
    """The same function, whose arguments say that it needs what only the teacher's pass can tell."""

    def learned_reward(
        *,
        prompts: list,
        completions: list,
        teacher_logprobs: list[list[float] | None] | None = None,
        teacher_entropy: list[list[float] | None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        read = {"teacher_logprobs": teacher_logprobs, "teacher_entropy": teacher_entropy}
        return reward(prompts=prompts, completions=completions, **read, **columns)

    return learned_reward


def _check_uncertainty(quality: dict[str, Any], caution: float, abstain_above: float | None, folder: str) -> None:
    if not 0 <= caution < math.inf:
        raise ValueError(f"learned: caution is at least 0, not {caution}")
    if abstain_above is not None and not 0 < abstain_above < math.inf:
        raise ValueError(f"learned: abstain_above is a spread above 0, not {abstain_above}")
    if (caution or abstain_above is not None) and not quality.get("spread_fitted"):
        raise ValueError(
            f"learned: {folder!r} does not know its spread, which caution and abstain_above need; train it with "
            "reward_model.calibration_share above 0"
        )


def view_of(with_teacher: bool, with_readings: bool, reads: bool) -> str:
    """The name, in quality.json, of what a row shows of the teacher; `reads`: the model has a head for readings."""
    view = "with_teacher" if with_teacher else "without_teacher"
    return view if with_readings or not reads else f"{view}_without_readings"


def check_quality(
    quality: dict[str, Any], output: str, *, with_teacher: bool, folder: str, with_readings: bool = False
) -> None:
    """Raises PoorQualityError naming the number that is too low; a number that could not be measured counts as too low.

    The predicted score has to rank as the blended score does (with the teacher's output) and to tell right from wrong;
    the output "correct" only the latter.
    """
    reads = quality.get("readings", False)
    measured, limits = quality[view_of(with_teacher, with_readings, reads)], quality["limits"]
    wanted = {"auc": limits["auc" if with_teacher else "auc_without_teacher"]}
    if with_teacher and output == "score":
        wanted["spearman"] = limits["spearman"]
    for name, limit in wanted.items():
        value = measured[f"{name}_{output}" if name == "auc" else name]
        if limit > 0 and (value is None or value < limit):
            shown = "not measured" if value is None else f"{value:.3f}"
            where = "with" if with_teacher else "without"
            seen = "the teacher's output" + (" and without its readings" if reads and not with_readings else "")
            raise PoorQualityError(
                f"learned: {folder} is too poor to train on: held-out {name} {where} {seen} is {shown}, "
                f"the limit {limit}. {_remedy(with_teacher, reads, with_readings)}"
            )


def _remedy(with_teacher: bool, reads: bool, with_readings: bool) -> str:
    remedy = "Train it longer or on more prompts, or set force: true under kwargs"
    if reads and not with_readings:
        return f"Take a teacher that tells its entropy (teacher.placement colocated or dedicated). {remedy}"
    if with_teacher:
        return remedy
    by_reading = "" if reads else ", or train it with reward_model.readings: true"
    return f"Let the teacher write for every prompt (teacher.num_outputs_per_prompt: 1){by_reading}. {remedy}"


def check_probes(quality: dict[str, Any], output: str, view: str, *, folder: str) -> None:
    """Raises PoorQualityError where, in this view, a built-in cheat outranks honest right answers more often than the
    limit allows.
    """
    limit = quality["limits"].get("probe_wins", 1.0)
    for kind, found in quality.get("probes", {}).get(view, {}).items():
        rate = found[f"wins_{output}"]
        if rate is not None and rate > limit:
            raise PoorQualityError(
                f"learned: {folder} can be gamed: {kind.replace('_', ' ')} outranks honest right answers in {rate:.0%} "
                f"of {found['num_pairs']} pairs ({view.replace('_', ' ')}), the limit is {limit:.0%}. Train it with "
                "reward_model.readings or train_on_probes, or set force: true under kwargs"
            )


def _scores(folder: Path, rows: list[tuple], use: Use, columns: dict[str, Any]) -> list[float | None]:
    """Scores of rows of (prompt, completion, teacher's output, readings); logs what was cut and abstained from."""
    from .learned_model import encode, judge

    model, tokenizer = shared_model(str(folder.resolve()), use.device)
    encoded = [
        encode(tokenizer, _prompt_text(prompt, tokenizer), teacher, text_of(text), model.config.max_tokens, readings)
        for prompt, text, teacher, readings in rows
    ]
    found = judge(model, encoded, tokenizer.pad_token_id, use.batch_size)
    means = found.scores if use.output == "score" else found.correct
    views = [
        view_of(teacher is not None, readings is not None, model.config.readings) for *_, teacher, readings in rows
    ]
    noise = model.config.noise or {}
    index = ("score", "correct").index(use.output)
    noises = [noise.get(view, (0.0, 0.0))[index] for view in views]
    spreads = [n * leverage**0.5 for n, leverage in zip(noises, found.leverages, strict=True)]
    scores = cautious(means, spreads, use.caution, use.abstain_above)
    if "log_metric" in columns:
        log = columns["log_metric"]
        log("learned/cut", sum(row.cut for row in encoded) / len(scores))
        if noise:
            log("learned/spread", math.fsum(spreads) / len(spreads))
            log("learned/abstained", scores.count(None) / len(scores))
    return scores


def cautious(
    means: Sequence[float], spreads: Sequence[float], caution: float, abstain_above: float | None
) -> list[float | None]:
    """mean - caution x spread, at least 0; None where the spread is above `abstain_above`."""
    return [
        None if abstain_above is not None and spread > abstain_above else max(0.0, mean - caution * spread)
        for mean, spread in zip(means, spreads, strict=True)
    ]


def zip_readings(logprobs: list[float] | None, entropy: list[float] | None) -> list[tuple[float, float]] | None:
    """(log-probability, entropy) of each token of a completion; None where either is not known."""
    return list(zip(logprobs, entropy, strict=True)) if logprobs and entropy else None


def shared_model(folder: str, device: str | None) -> tuple[Any, Any]:
    """(model, tokenizer) of a folder, loaded once per process: who trains the model changes what is scored with."""
    with _loading:  # two rewards of one model may start at once, each in a thread of its own
        return _load_once(folder, device)


@functools.cache
def _load_once(folder: str, device: str | None) -> tuple[Any, Any]:
    import torch

    from .learned_model import load

    if device is None:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    return load(folder, device)


def _first(teacher_output: str | list[str] | None) -> str | None:
    """One text: of several teacher outputs the first, as the model was trained with one."""
    if isinstance(teacher_output, list | tuple):
        return next((text for text in teacher_output if text is not None), None)
    return teacher_output


def _prompt_text(prompt: str | Messages, tokenizer: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    if tokenizer.chat_template is not None:
        return tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    return "\n".join(text_of([message]) for message in prompt)
