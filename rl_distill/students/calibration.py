"""Texts that show what a model is used for, as token batches: to measure importance on, and to judge a cut by.

Reads .jsonl, .parquet and .txt files. Knows tokenizers, but no models.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..config import ConfigError

BLOCK_CHARACTERS = 2000
BATCH_TOKENS = 2048
HELD_OUT_EVERY = 5


@dataclass(frozen=True)
class Row:
    """One text. Only what follows the prompt counts; the prompt is context. `ids` replace the text, with their mask."""

    text: str = ""
    prompt: str = ""
    ids: tuple[int, ...] | None = None
    mask: tuple[bool, ...] | None = None


class TokenBatch(NamedTuple):
    """Right-padded rows; under causal attention padding on the right changes no real token, so no mask is passed on."""

    ids_BT: Tensor
    scored_BT: Tensor
    """true where a token counts: of a completion, of a plain text"""


class Tokenized(NamedTuple):
    ids: list[int]
    scored: list[bool]
    num_bytes: int | None
    """UTF-8 bytes of the tokens that are predicted, which excludes a text's first; None for rows of ids"""
    row: Row


@dataclass(frozen=True)
class Calibration:
    """Texts to measure importance on, and others to judge the student by.

    `max_tokens` bounds both sets, `search_tokens` what the greedy search of `layers: learned` reads again and again.
    """

    rows: Sequence[Row]
    held_out: Sequence[Row]
    max_length: int = 512
    max_tokens: int = 8192
    search_tokens: int = 1024

    @classmethod
    def of(cls, rows: Sequence[Row], held_out: Sequence[Row] | None = None, **limits: int) -> Calibration:
        """Shuffled in one fixed way. Without held-out rows, every fifth is taken from `rows`."""
        shuffled = _shuffled(rows)
        if held_out is None:
            held_out = shuffled[::HELD_OUT_EVERY]
            shuffled = [row for place, row in enumerate(shuffled) if place % HELD_OUT_EVERY]
        if not shuffled or not held_out:
            raise ConfigError("calibration: at least two rows are needed, one to measure on and one held out")
        return cls(shuffled, _shuffled(held_out), **limits)


def _shuffled(rows: Sequence[Row]) -> list[Row]:
    return random.Random(0).sample(list(rows), len(rows))


def read_rows(path: str | Path, verified: str | None = None) -> list[Row]:
    """The rows of a file; with `verified`, those alone whose column of that name is at least 1 (true counts as 1).

    A record has `text`, or `prompt` and `completion`, or `input_ids` with an optional `mask` of the same length. A .txt
    file is cut at blank lines into rows of up to 2,000 characters.
    """
    path = Path(path)
    if path.suffix == ".txt":
        if verified is not None:
            raise ConfigError(f"verified: {path} is plain text and has no column {verified!r}")
        return [Row(block) for block in blocks(_read_text(path))]
    records = list(_records(path))
    if verified is not None:
        if records and all(verified not in record for record in records):
            raise ConfigError(f"verified: {path} has no column {verified!r}; columns are {', '.join(records[0])}")
        records = [record for record in records if _passed(record.get(verified), verified, path)]
    if not records:
        raise ConfigError(f"{path} has no row" + (f" whose {verified!r} is at least 1" if verified else ""))
    return [_row(record, path) for record in records]


def _passed(score: object, column: str, path: Path) -> bool:
    """Whether a score is at least 1; None, an unscored completion, is not."""
    if not isinstance(score, int | float | None):
        raise ConfigError(f"verified: column {column!r} of {path} holds {score!r}; want numbers or true and false")
    return (score or 0) >= 1


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(f"file {str(path)!r} does not exist")
    return path.read_text()


def _records(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        _require(path)
        yield from pq.read_table(path).to_pylist()
        return
    if path.suffix != ".jsonl":
        raise ConfigError(f"{path}: want a .jsonl, .parquet or .txt file")
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}, line {number}: not valid JSON ({error.msg})") from error


def _require(path: Path) -> None:
    if not path.is_file():
        raise ConfigError(f"file {str(path)!r} does not exist")


def _row(record: dict[str, Any], path: Path) -> Row:
    if record.get("input_ids"):
        ids, mask = record["input_ids"], record.get("mask") or [True] * len(record["input_ids"])
        if len(ids) != len(mask):
            raise ConfigError(f"{path}: a row has {len(ids)} input_ids and a mask of {len(mask)}")
        return Row(ids=tuple(ids), mask=tuple(bool(value) for value in mask))
    if isinstance(record.get("completion"), str) and isinstance(record.get("prompt"), str):
        return Row(record["completion"], record["prompt"])
    if isinstance(record.get("text"), str):
        return Row(record["text"])
    raise ConfigError(f"{path}: want text, or prompt and completion, or input_ids; columns are {', '.join(record)}")


def blocks(text: str) -> list[str]:
    """Whole paragraphs joined up to some 2,000 characters; a longer paragraph stays whole."""
    found = [""]
    for paragraph in text.split("\n\n"):
        if found[-1] and len(found[-1]) + len(paragraph) > BLOCK_CHARACTERS:
            found.append("")
        found[-1] += ("\n\n" if found[-1] else "") + paragraph
    return [block for block in found if block.strip()]


def tokenize(row: Row, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Tokenized:
    """The row's first `max_length` tokens. Prompt and completion are tokenised apart, as rollouts are."""
    if row.ids is not None:
        assert row.mask is not None
        return Tokenized(list(row.ids[:max_length]), list(row.mask[:max_length]), None, row)
    prompt_ids = tokenizer(row.prompt)["input_ids"] if row.prompt else []
    text = tokenizer(row.text, add_special_tokens=not row.prompt, return_offsets_mapping=True)
    ids = [*prompt_ids, *text["input_ids"]][:max_length]
    scored = [place >= len(prompt_ids) for place in range(len(ids))]
    offsets = text["offset_mapping"][: max(len(ids) - len(prompt_ids), 0)]
    predicted = offsets[0 if prompt_ids else 1 :]
    num_bytes = len(row.text[predicted[0][0] : predicted[-1][1]].encode()) if predicted else 0
    return Tokenized(ids, scored, num_bytes, row)


def take(rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase, max_length: int, max_tokens: int) -> list[Tokenized]:
    """The first rows with something to predict, until they hold `max_tokens` tokens; at least one."""
    found: list[Tokenized] = []
    total = 0
    for row in rows:
        tokens = tokenize(row, tokenizer, max_length)
        if not any(tokens.scored[1:]):
            continue
        if found and total + len(tokens.ids) > max_tokens:
            break
        found.append(tokens)
        total += len(tokens.ids)
    if not found:
        raise ConfigError("calibration: no row has a token to predict (texts of two tokens, completions of one)")
    return found


def batches(rows: Sequence[Tokenized], batch_tokens: int = BATCH_TOKENS) -> list[TokenBatch]:
    """The rows by length, as batches of up to `batch_tokens` tokens with padding."""
    groups: list[list[Tokenized]] = []
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if not groups or (len(groups[-1]) + 1) * len(row.ids) > batch_tokens:
            groups.append([])
        groups[-1].append(row)
    return [_padded(group) for group in groups]


def _padded(rows: Sequence[Tokenized]) -> TokenBatch:
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([torch.tensor(row.ids) for row in rows], batch_first=True)
    return TokenBatch(ids, pad([torch.tensor(row.scored) for row in rows], batch_first=True))


def read_texts(path: str | Path) -> list[str]:
    """All text of a file, prompts and completions alike, for a vocabulary. A .txt file is one text."""
    if Path(path).suffix == ".txt":
        return [_read_text(Path(path))]
    rows = read_rows(path)
    if any(row.ids is not None for row in rows):
        raise ConfigError(f"vocab: {path} holds token ids; a vocabulary is made from texts")
    return [text for row in rows for text in (row.prompt, row.text) if text]
