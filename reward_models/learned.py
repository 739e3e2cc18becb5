"""The trained reward model as a reward function: `{fn: learned, weight: 0.5, kwargs: {model: runs/reward_model}}`.

It may assume a folder that launch/reward_model.py wrote, with `quality.json` beside the weights. Imports no torch: the
model is loaded by the first batch, once per process. It will not score with a model that failed its own held-out test.
"""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .base import Messages, text_of

QUALITY_FILE = "quality.json"
_loading = threading.Lock()


class PoorQualityError(ValueError):
    """The model's held-out numbers are under the limits stored with it."""


def learned(
    model: str, output: str = "score", force: bool = False, batch_size: int = 64, device: str | None = None
) -> Callable[..., list[float | None]]:
    """The reward function of a trained model: scores in 0..1, with or without the column `teacher_output`.

    `output`: "score" predicts the blended reward it was trained on, "correct" the probability of a right answer.
    Raises ValueError on a folder without a model, PoorQualityError under the model's stored limits unless `force`.
    """
    folder = Path(model).expanduser()
    if not (folder / QUALITY_FILE).is_file():
        raise ValueError(f"learned: {model!r} is no reward model (no {QUALITY_FILE}); launch/reward_model.py makes one")
    if output not in ("score", "correct"):
        raise ValueError(f"learned: output is score or correct, not {output!r}")
    quality = json.loads((folder / QUALITY_FILE).read_text())
    if output == "correct" and not quality["predicts_correctness"]:
        raise ValueError(f"learned: {model!r} was trained on preferences alone; it has no output `correct`")
    if not force:
        check_quality(quality, output, with_teacher=True, folder=model)

    def learned_reward(*, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        teacher_outputs = [_first(item) for item in columns.get("teacher_output") or [None] * len(completions)]
        if not force and None in teacher_outputs:
            check_quality(quality, output, with_teacher=False, folder=model)
        if not completions:
            return []
        seen = columns.get("rendered_prompt") or prompts  # the very text that it was trained on, where it is known
        scores, num_cut = _scores(folder, seen, completions, teacher_outputs, output, batch_size, device)
        if "log_metric" in columns:
            columns["log_metric"]("learned/cut", num_cut / len(scores))
        return scores

    return learned_reward


def check_quality(quality: dict[str, Any], output: str, *, with_teacher: bool, folder: str) -> None:
    """Raises PoorQualityError naming the number that is too low; a number that could not be measured counts as too low.

    The predicted score has to rank as the blended score does (with the teacher's output) and to tell right from wrong;
    the output "correct" only the latter.
    """
    measured, limits = quality["with_teacher" if with_teacher else "without_teacher"], quality["limits"]
    wanted = {"auc": limits["auc" if with_teacher else "auc_without_teacher"]}
    if with_teacher and output == "score":
        wanted["spearman"] = limits["spearman"]
    for name, limit in wanted.items():
        value = measured[f"{name}_{output}" if name == "auc" else name]
        if limit > 0 and (value is None or value < limit):
            shown = "not measured" if value is None else f"{value:.3f}"
            where = "with" if with_teacher else "without"
            remedy = "Train it longer or on more prompts, or set force: true under kwargs"
            if not with_teacher:
                remedy = f"Let the teacher write for every prompt (teacher.num_outputs_per_prompt: 1). {remedy}"
            raise PoorQualityError(
                f"learned: {folder} is too poor to train on: held-out {name} {where} the teacher's output is {shown}, "
                f"the limit {limit}. {remedy}"
            )


def _scores(
    folder: Path,
    prompts: list,
    completions: list,
    teacher_outputs: list[str | None],
    output: str,
    batch_size: int,
    device: str | None,
) -> tuple[list[float | None], int]:
    from .learned_model import encode, predict

    model, tokenizer = shared_model(str(folder.resolve()), device)
    rows = [
        encode(tokenizer, _prompt_text(prompt, tokenizer), teacher, text_of(completion), model.config.max_tokens)
        for prompt, completion, teacher in zip(prompts, completions, teacher_outputs, strict=True)
    ]
    scores, correct = predict(model, rows, tokenizer.pad_token_id, batch_size)
    return list(scores if output == "score" else correct), sum(row.cut for row in rows)


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
