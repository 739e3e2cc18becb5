"""A student from a teacher: choose, cut, write a folder that `from_pretrained` loads, measure it as loaded.

The folder appears whole or not at all. Needs memory for the teacher and the student at once. Trains nothing.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..config import ConfigError
from ..provenance import versions
from . import importance
from .calibration import Calibration, Tokenized, batches, read_texts, take
from .card import Cost, Size, StudentCard, write_card
from .families import check_config, check_weights, load_teacher, move
from .measure import compare, mean_nll
from .selection import choose, width_warnings
from .shape import StudentShapeConfig
from .surgery import Cut, Dimensions, cut_model
from .vocabulary import changed_pieces, ids_in, kept_tokens, renumber_config, template_texts, write_cut_tokenizer


@dataclass(frozen=True)
class _Teacher:
    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def init_student(
    teacher: str | Path | PreTrainedModel,
    out: str | Path,
    shape: StudentShapeConfig,
    calibration: Calibration | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    dtype: str = "auto",
    command: str = "rl_distill.students.init_student(...)",
) -> StudentCard:
    """The card of the student written to `out`; raises ConfigError before anything is written.

    A teacher given as a model needs its tokenizer; one given as a folder or hub id brings its own, and is loaded in
    `dtype` (its own by default). Criteria that look at activations need `calibration`; without it, the student is not
    measured either.
    """
    started = time.perf_counter()
    out = Path(out)
    _check(out, shape, calibration)
    source = _load(teacher, tokenizer, dtype)
    cut, num_tokens = _choose(source, shape, calibration)
    texts = _corpus(source, shape)
    cut = cut if texts is None else replace(cut, vocab=_vocabulary(source, texts))
    folder = out.with_name(out.name + ".tmp")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        student_tokenizer = _write(source, cut, texts, folder)
        student = move(AutoModelForCausalLM.from_pretrained(folder, dtype="auto"), source.model.device).eval()
        cost = None if calibration is None else _cost(source, student, student_tokenizer, cut, calibration)
        card = _card(source, student, shape, cut, cost, num_tokens, command, time.perf_counter() - started)
        write_card(card, folder)
        out.parent.mkdir(parents=True, exist_ok=True)
        folder.replace(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return card


def _check(out: Path, shape: StudentShapeConfig, calibration: Calibration | None) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"out: {str(out)!r} exists already; give a folder that does not")
    needing = shape.needing_text()
    if needing and calibration is None:
        raise ConfigError(f"{', '.join(needing)}: the criterion measures activations: give --calibration FILE")
    if shape.vocab and calibration and any(row.ids is not None for row in calibration.held_out):
        raise ConfigError("vocab: held-out rows of token ids cannot be read with another vocabulary; give texts")


def _load(teacher: str | Path | PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, dtype: str) -> _Teacher:
    if isinstance(teacher, PreTrainedModel):
        if tokenizer is None:
            raise ConfigError("tokenizer: a teacher given as a model needs its tokenizer")
        check_config(teacher.config)
        found = _Teacher(teacher.config.name_or_path or type(teacher).__name__, teacher.eval(), tokenizer)
    else:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = move(load_teacher(teacher, dtype), device)
        found = _Teacher(str(teacher), model, tokenizer or AutoTokenizer.from_pretrained(teacher))
    check_weights(found.model)
    return found


def _choose(source: _Teacher, shape: StudentShapeConfig, calibration: Calibration | None) -> tuple[Cut, int]:
    """The cut of everything but the vocabulary, and the number of tokens that importance was measured on."""
    if calibration is None or not shape.needing_text():
        return choose(source.model, shape, None), 0
    rows = take(calibration.rows, source.tokenizer, calibration.max_length, calibration.max_tokens)
    search = take(calibration.rows, source.tokenizer, calibration.max_length, calibration.search_tokens)
    cut = choose(source.model, shape, importance.measure(source.model, batches(rows)), batches(search))
    return cut, sum(sum(row.scored) for row in rows)


def _corpus(source: _Teacher, shape: StudentShapeConfig) -> list[str] | None:
    if shape.vocab is None:
        return None
    return [*read_texts(shape.vocab), *template_texts(source.tokenizer)]


def _vocabulary(source: _Teacher, texts: Sequence[str]) -> tuple[int, ...]:
    """The ids of the texts' tokens and of those that the model's settings name."""
    model = source.model
    named = ids_in(model.config.to_dict()) | ids_in(model.generation_config.to_dict())
    kept = {*kept_tokens(source.tokenizer, texts), *(x for x in named if 0 <= x < len(source.tokenizer))}
    if max(kept) >= model.config.vocab_size:
        raise ConfigError(f"vocab: the tokenizer has id {max(kept)}, the model {model.config.vocab_size} embeddings")
    return tuple(sorted(kept))


def _write(source: _Teacher, cut: Cut, texts: Sequence[str] | None, folder: Path) -> PreTrainedTokenizerBase:
    """The student's weights and tokenizer in the folder; its tokenizer comes back."""
    student = cut_model(source.model, cut)
    tokenizer = source.tokenizer
    folder.mkdir(parents=True)
    if texts is None:
        tokenizer.save_pretrained(folder)
    else:
        tokenizer = write_cut_tokenizer(source.tokenizer, cut.vocab, folder)
        changed = changed_pieces(source.tokenizer, tokenizer, texts)
        if changed is not None:
            raise ConfigError(f"vocab: this tokenizer cannot be cut; it would split {changed[:80]!r} differently")
        new_ids = {old: new for new, old in enumerate(cut.vocab)}
        renumber_config(student.config, new_ids)
        renumber_config(student.generation_config, new_ids)
    student.save_pretrained(folder)
    return tokenizer


def _cost(
    source: _Teacher,
    student: PreTrainedModel,
    student_tokenizer: PreTrainedTokenizerBase,
    cut: Cut,
    calibration: Calibration,
) -> Cost:
    own = take(calibration.held_out, source.tokenizer, calibration.max_length, calibration.max_tokens)
    if len(cut.vocab) == source.model.config.vocab_size:
        found = compare(source.model, student, batches(own))
        return Cost(found, _bits_per_byte(found.teacher_nll, own), _bits_per_byte(found.student_nll, own))
    theirs = take([tokens.row for tokens in own], student_tokenizer, calibration.max_length, sys.maxsize)
    found = compare(source.model, student, batches(theirs), torch.tensor(cut.vocab))
    teacher_nll = mean_nll(source.model, batches(own))
    return Cost(found, _bits_per_byte(teacher_nll, own), _bits_per_byte(found.student_nll, theirs))


def _bits_per_byte(nll: float, rows: Sequence[Tokenized]) -> float | None:
    if any(row.num_bytes is None for row in rows):
        return None
    num_tokens = sum(sum(row.scored[1:]) for row in rows)
    return nll * num_tokens / math.log(2) / sum(row.num_bytes or 0 for row in rows)


def _card(
    source: _Teacher,
    student: PreTrainedModel,
    shape: StudentShapeConfig,
    cut: Cut,
    cost: Cost | None,
    num_calibration_tokens: int,
    command: str,
    seconds: float,
) -> StudentCard:
    before, after = Dimensions.of(source.model.config), Dimensions.of(student.config)
    return StudentCard(
        teacher=source.name,
        shape=shape,
        layers=cut.layers,
        groups=cut.groups,
        before=before,
        after=after,
        teacher_size=_size(source.model),
        student_size=_size(student),
        cost=cost,
        num_calibration_tokens=num_calibration_tokens,
        seconds=round(seconds, 1),
        warnings=tuple(width_warnings(before, after)),
        command=command,
        versions=versions(),
    )


def _size(model: PreTrainedModel) -> Size:
    tensors = list(model.parameters())
    return Size(sum(x.numel() for x in tensors), sum(x.numel() * x.element_size() for x in tensors))
