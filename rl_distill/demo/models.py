"""The demo default's teacher and student: made once, cached by what they were made from.

The teacher is warmed up on reference solutions; it writes a small, fixed budget of outputs; the student's cold start is
SFT on those alone. Cached folders are ordinary Hugging Face folders and appear whole or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from ..config import DemoConfig, RunConfig
from ..distill.sft import TrainingText, fine_tune
from ..distributed import fast_bf16
from ..progress import StageProgress
from ..stage_cache import cache_key, cached
from ..types import Problem, Splits
from .problems import make_problems
from .tiny import make_model, make_tokenizer

GOLD_COLUMNS = ("answer", "test", "entry_point")


def make_splits(config: DemoConfig, seed: int) -> Splits:
    """Four disjoint sets of problems; validation and test are the same for every seed."""
    share = config.math_share
    cold_start = make_problems("train", config.num_teacher_outputs, seed, math_share=share)
    keys = {problem.key for problem in cold_start}
    train = make_problems("train", config.num_train_prompts, seed, math_share=share, exclude=keys)
    if config.num_labelled_prompts is not None:
        labelled = config.num_labelled_prompts
        train = train[:labelled] + [without_gold(problem) for problem in train[labelled:]]
        cold_start = [without_gold(problem) for problem in cold_start]
    return Splits(
        cold_start=cold_start,
        train=train,
        validation=make_problems("validation", config.num_validation, 0, math_share=share),
        test=make_problems("test", config.num_test, 0, math_share=share),
    )


def without_gold(problem: Problem) -> Problem:
    """The prompt alone: no check applies to its answers."""
    columns = {name: value for name, value in problem.columns.items() if name not in GOLD_COLUMNS}
    return replace(problem, solution="", columns=columns)


def teacher_folder(config: RunConfig, demo: DemoConfig, cache_dir: Path, work_dir: Path) -> Path:
    """The teacher: a tiny model after SFT on reference solutions, with its tokenizer beside it."""
    key = cache_key(
        seed=config.seed,
        vocab_size=demo.vocab_size,
        math_share=demo.teacher_math_share,
        num_problems=demo.num_teacher_problems,
        shape=asdict(demo.teacher),
        sft=asdict(demo.teacher_sft),
    )

    def make(folder: Path) -> None:
        problems = make_problems(
            "train",
            demo.num_teacher_problems,
            config.seed,
            math_share=demo.teacher_math_share,
        )
        tokenizer = make_tokenizer([p.prompt + p.solution for p in problems[:4000]], demo.vocab_size)
        model = make_model(demo.teacher, tokenizer, config.seed)
        fine_tune(
            model,
            tokenizer,
            [TrainingText(problem.prompt, problem.solution) for problem in problems],
            demo.teacher_sft,
            seed=config.seed,
            work_dir=work_dir,
            bf16=fast_bf16(model.device),
            callbacks=[StageProgress("teacher warm-up")],
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return cached(cache_dir / f"teacher-{key}", make)


def student_folder(
    config: RunConfig,
    demo: DemoConfig,
    teacher_path: Path,
    texts: Sequence[TrainingText],
    cache_dir: Path,
    work_dir: Path,
) -> Path:
    """The student after its cold start on the teacher's outputs: the baseline that RL starts from."""
    key = cache_key(
        seed=config.seed,
        teacher=teacher_path.name,
        texts=list(texts),
        shape=asdict(demo.student),
        sft=asdict(demo.student_sft),
    )

    def make(folder: Path) -> None:
        tokenizer: Any = AutoTokenizer.from_pretrained(teacher_path)
        model = make_model(demo.student, tokenizer, config.seed + 1)
        fine_tune(
            model,
            tokenizer,
            texts,
            demo.student_sft,
            seed=config.seed,
            work_dir=work_dir,
            callbacks=[StageProgress("cold start")],
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return cached(cache_dir / f"student-{key}", make)
