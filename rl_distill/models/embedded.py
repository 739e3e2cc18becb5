"""The embedded default's teacher and student: made once, cached by what they were made from.

The teacher is warmed up on reference solutions; it writes a small, fixed budget of outputs; the student's cold start is
SFT on those alone. Cached folders are ordinary Hugging Face folders and appear whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from .. import distributed
from ..config import EmbeddedConfig, RunConfig
from ..distributed import fast_bf16
from ..sft import fine_tune
from ..tasks.embedded import make_problems
from ..types import Problem
from .lora import quantization_config
from .tiny import make_model, make_tokenizer


@dataclass(frozen=True)
class Splits:
    """Problems of a run. `cold_start` prompts are those the teacher writes for; RL's `train` prompts are others."""

    cold_start: list[Problem]
    train: list[Problem]
    validation: list[Problem]
    test: list[Problem]


def make_splits(config: EmbeddedConfig, seed: int) -> Splits:
    """Four disjoint sets of problems; validation and test are the same for every seed."""
    share = config.math_share
    cold_start = make_problems("train", config.num_teacher_outputs, seed, math_share=share)
    keys = {problem.key for problem in cold_start}
    return Splits(
        cold_start=cold_start,
        train=make_problems("train", config.num_train_prompts, seed, math_share=share, exclude=keys),
        validation=make_problems("validation", config.num_validation, 0, math_share=share),
        test=make_problems("test", config.num_test, 0, math_share=share),
    )


def cached(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, made by `make` in a temporary place and renamed, so that it is whole whenever it exists.

    All processes make it together (a stage may train on all of them), each in a place of its own; the main one's stays.
    """
    if not distributed.from_main(folder.is_dir()):
        temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        make(temporary)
        if distributed.is_main() and not folder.is_dir():  # another run may have been faster
            temporary.rename(folder)
        else:
            shutil.rmtree(temporary)
        distributed.barrier()
    return folder


def cache_key(**made_from: Any) -> str:
    text = json.dumps(made_from | {"transformers": transformers.__version__}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def teacher_folder(config: RunConfig, embedded: EmbeddedConfig, cache_dir: Path, work_dir: Path) -> Path:
    """The teacher: a tiny model after SFT on reference solutions, with its tokenizer beside it."""
    key = cache_key(
        seed=config.seed,
        vocab_size=embedded.vocab_size,
        math_share=embedded.teacher_math_share,
        num_problems=embedded.num_teacher_problems,
        shape=asdict(embedded.teacher),
        sft=asdict(embedded.teacher_sft),
    )

    def make(folder: Path) -> None:
        problems = make_problems(
            "train",
            embedded.num_teacher_problems,
            config.seed,
            math_share=embedded.teacher_math_share,
        )
        tokenizer = make_tokenizer([p.prompt + p.solution for p in problems[:4000]], embedded.vocab_size)
        model = make_model(embedded.teacher, tokenizer, config.seed)
        fine_tune(
            model,
            tokenizer,
            [(problem.prompt, problem.solution) for problem in problems],
            embedded.teacher_sft,
            seed=config.seed,
            work_dir=work_dir,
            bf16=fast_bf16(model.device),
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return cached(cache_dir / f"teacher-{key}", make)


def student_folder(
    config: RunConfig,
    embedded: EmbeddedConfig,
    teacher_path: Path,
    pairs: Sequence[tuple[str, str]],
    cache_dir: Path,
    work_dir: Path,
) -> Path:
    """The student after its cold start on (prompt, teacher output) pairs: the baseline that RL starts from."""
    key = cache_key(
        seed=config.seed,
        teacher=teacher_path.name,
        pairs=list(pairs),
        shape=asdict(embedded.student),
        sft=asdict(embedded.student_sft),
    )

    def make(folder: Path) -> None:
        tokenizer: Any = AutoTokenizer.from_pretrained(teacher_path)
        model = make_model(embedded.student, tokenizer, config.seed + 1)
        fine_tune(
            model,
            tokenizer,
            pairs,
            embedded.student_sft,
            seed=config.seed,
            work_dir=work_dir,
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return cached(cache_dir / f"student-{key}", make)


def load(path: Path | str, dtype: str = "float32", quantization: str | None = None) -> tuple[Any, Any]:
    """(model, tokenizer) of a folder or hub id; `quantization` "4bit" or "8bit" loads the weights by bitsandbytes."""
    options: dict[str, Any] = {}
    if quantization is not None:
        options = {"quantization_config": quantization_config(quantization), "device_map": {"": distributed.device()}}
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **options)
    return model, AutoTokenizer.from_pretrained(path)
