"""A distillation small enough for a test: random tiny models, sequences from the demo problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rl_distill.config import RunConfig, TinyModelConfig, load_config
from rl_distill.demo.problems import make_problems
from rl_distill.demo.tiny import make_model, make_tokenizer
from rl_distill.distill.examples import Example
from rl_distill.distill.student import DistillationStudent
from rl_distill.distill.trainer import DistillationTrainer
from rl_distill.teachers.colocated import make_teacher


def make_config(folder: Path, **settings: Any) -> RunConfig:
    """Settings under `distill`, dots written as double underscores."""
    defaults = {"num_steps": 4, "batch_size": 8, "micro_batch_size": 4, "warmup_steps": 0, "evaluate_every_steps": 1000}
    dotted = {f"distill.{name.replace('__', '.')}": value for name, value in (defaults | settings).items()}
    fixed = {
        "generation.max_completion_length": 12,
        "report_to": [],
        "output_dir": str(folder),
        "teacher.autocast": "off",
    }
    return load_config(None, fixed | dotted)


def make_case(config: RunConfig, num_examples: int = 16) -> tuple[Any, Any, Any, list[Example]]:
    """(student, teacher, tokenizer, examples)"""
    problems = make_problems("train", 40, 0)
    tokenizer = make_tokenizer([p.prompt + p.solution for p in problems], 320)
    student = make_model(TinyModelConfig(32, 64, 2, 4), tokenizer, 2)
    teacher = make_teacher(config, make_model(TinyModelConfig(48, 64, 4, 4), tokenizer, 1), tokenizer)
    examples = [
        Example(p.task, tokenizer(p.prompt)["input_ids"], [*tokenizer(p.solution)["input_ids"], tokenizer.eos_token_id])
        for p in problems[:num_examples]
    ]
    return student, teacher, tokenizer, examples


def make_distiller(folder: Path, **settings: Any) -> DistillationTrainer:
    from rl_distill.distill.stage import wrap_student

    config = make_config(folder, **settings)
    student, teacher, tokenizer, examples = make_case(config)
    model: DistillationStudent = wrap_student(config.distill, student, teacher, len(tokenizer))
    return DistillationTrainer(model, config, config.distill, examples, teacher, tokenizer, folder)
