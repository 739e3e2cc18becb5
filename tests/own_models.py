"""Models and data of one's own on disk, for tests: a student, teachers of different sizes, two tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rl_distill.config import RunConfig, TinyModelConfig, load_config
from rl_distill.demo.problems import make_problems
from rl_distill.demo.tiny import make_model, make_tokenizer
from tests.tiny_run import SETTINGS

SHAPES = {
    "student": TinyModelConfig(32, 64, 2, 4),
    "small": TinyModelConfig(32, 64, 1, 4),
    "large": TinyModelConfig(48, 64, 2, 4),
    "deep": TinyModelConfig(48, 64, 4, 4),
}


def write(folder: Path) -> Path:
    """The folder, with student/, small/, large/, deep/ and train.jsonl in it."""
    problems = make_problems("train", 40, 0)
    tokenizer = make_tokenizer([p.prompt + p.solution for p in problems], 320)
    for seed, (name, shape) in enumerate(SHAPES.items()):
        make_model(shape, tokenizer, seed).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    rows = [{"prompt": p.prompt, "task": p.task, **p.columns} for p in problems]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def settings(folder: Path, output_dir: Path, **changes: Any) -> dict[str, Any]:
    """Those of a run with these models, and `changes` with double underscores for dots."""
    own = {
        "demo": None,
        "output_dir": str(output_dir),
        "student.model": str(folder / "student"),
        "data.train": str(folder / "train.jsonl"),
        "teacher.dtype": "float32",
        "teacher.autocast": "off",
        "anchor.schedule": "fixed",
        "rewards": [{"fn": "task_check", "weight": 1.0}, {"fn": "teacher_likelihood", "weight": 0.5}],
    }
    return SETTINGS | own | {name.replace("__", "."): value for name, value in changes.items()}


def config(folder: Path, output_dir: Path, **changes: Any) -> RunConfig:
    return load_config(None, settings(folder, output_dir, **changes))


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    """For tests/launched.py and tests/killable.py, which write dots as double underscores."""
    own = {
        "demo": "null",
        "student__model": folder / "student",
        "data__train": folder / "train.jsonl",
        "teacher__dtype": "float32",
        "anchor__schedule": "fixed",
        "rewards": "[{fn: task_check, weight: 1.0}, {fn: teacher_likelihood, weight: 5.0}]",
        "ppo__learning_rate": 1e-4,  # untrained models: at a high rate rounding decides between two tokens in step 4
    }
    return own | changes
