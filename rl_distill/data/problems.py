"""The rows of a source as problems, with what was left out and why.

A row without a prompt is an error that names the first of them; one that is too long is dropped, cut or refused, as the
settings say, and counted either way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import distributed
from ..config import ConfigError, DataConfig
from ..models.tokenizers import prompt_ids
from ..types import Problem
from .prompts import RowError, check_settings, column_of, prompt_of
from .sources import Row, read_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_problems(
    config: DataConfig, source: str | Sequence[str], split: str, tokenizer: PreTrainedTokenizerBase, setting: str = ""
) -> list[Problem]:
    """The rows of one source as problems; ConfigError on a missing file or column, listing what there is.

    `setting` is what names the source where that is not data.`split`.
    """
    rows = read_rows(source, split, config.config_name)
    columns = list(dict.fromkeys(name for row in rows for name in row.columns))
    try:
        check_settings(config, columns, tokenizer)
    except ConfigError as error:
        raise ConfigError(f"{error} (data.{split})") from error
    return _of_length(config, _problems(config, rows, split, tokenizer), setting or f"data.{split}", tokenizer)


def _problems(config: DataConfig, rows: list[Row], split: str, tokenizer: PreTrainedTokenizerBase) -> list[Problem]:
    found, refused = [], []
    for row in rows:
        try:
            found.append(_problem(config, row.columns, tokenizer))
        except RowError as error:
            refused.append(f"{row.place}: {error}")
    if refused:
        raise ConfigError(
            f"data.{split}: {len(refused)} of {len(rows)} rows have no usable prompt; mend or remove them. The first: "
            f"{refused[0]}"
        )
    return found


def _problem(config: DataConfig, row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Problem:
    prompt = prompt_of(config, row, tokenizer)
    columns = {name: value for name, value in row.items() if name != column_of(config, list(row))}
    key = hashlib.sha256(prompt.text.encode()).hexdigest()[:16]
    return Problem(str(row.get("task", config.task)), key, prompt.text, prompt.answer, columns, prompt.messages)


def _of_length(
    config: DataConfig, problems: list[Problem], setting: str, tokenizer: PreTrainedTokenizerBase
) -> list[Problem]:
    """Those within data.max_prompt_length, or all of them cut to it."""
    limit = config.max_prompt_length
    if limit is None:
        return problems
    texts = [problem.prompt for problem in problems]
    lengths = [len(ids) for ids in prompt_ids(tokenizer, texts)]
    fitting = [problem for problem, n in zip(problems, lengths, strict=True) if n <= limit]
    words = (
        f"{setting}: {len(problems) - len(fitting)} of {len(problems)} prompts are longer than "
        f"data.max_prompt_length ({limit}); the longest has {max(lengths)} tokens"
    )
    if len(fitting) == len(problems):
        return problems
    if config.overlong_prompts == "cut":
        _tell(f"{words}: their beginnings are cut off")
        pairs = zip(problems, lengths, strict=True)
        return [p if n <= limit else _cut(p, limit, tokenizer) for p, n in pairs]
    if config.overlong_prompts == "refuse" or not fitting:
        raise ConfigError(
            f"{words}: raise it, or set data.overlong_prompts to {'cut' if not fitting else 'drop or cut'}"
        )
    _tell(f"{words}: they are left out")
    return fitting


def _cut(problem: Problem, limit: int, tokenizer: PreTrainedTokenizerBase) -> Problem:
    """The problem with the end of its prompt: as many characters as `limit` tokens hold."""
    prompt, budget = problem.prompt, limit
    while True:
        offsets = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        if len(offsets) <= limit:
            return replace(problem, prompt=prompt)
        prompt = prompt[max(1, offsets[-budget][0]) :]
        budget -= 1


def _tell(message: str) -> None:
    if distributed.is_main():
        print(message, flush=True)
