"""The user's own prompts: a hub dataset, or a local .jsonl, .json, .parquet or .csv file, as problems.

Columns beside the prompt reach reward functions by name. Known to the graders: `answer` (math), or `test` and
`entry_point` (code, as in HumanEval); rows with neither are rewarded by similarity or by the user's functions only.
"""

from __future__ import annotations

import hashlib
import random
import warnings
from pathlib import Path
from typing import Any

from .. import distributed
from ..config import ConfigError, DataConfig
from ..models.tokenizers import prompt_ids
from ..types import Problem, Splits

LOADERS = {".jsonl": "json", ".json": "json", ".gz": "json", ".parquet": "parquet", ".csv": "csv"}
VALIDATION_SHARE = 0.05
MAX_VALIDATION = 200
SHOWN_CHARACTERS = 80


def load_splits(config: DataConfig, tokenizer: Any, seed: int) -> Splits:
    """Problems by split, no key in two of them, each training prompt once. What is left out for that is told.

    Without a validation source a share of the training prompts is held out; without a test source the validation
    problems serve as test (the report then shows them twice).
    """
    train = _distinct(load_problems(config, str(config.train), "train", tokenizer))
    validation = _given(config, "validation", tokenizer)
    test = _given(config, "test", tokenizer)
    train = _without(train, test, "data.test", "data.train")
    if validation is None:
        validation, train = _hold_out(train, seed)
    else:
        validation = _without(validation, test, "data.test", "data.validation")
        train = _without(train, validation, "data.validation", "data.train")
    if not train:
        raise ConfigError(f"data.train: {config.train} has no prompt left to train on")
    return Splits(cold_start=[], train=train, validation=validation, test=validation if test is None else test)


def _given(config: DataConfig, split: str, tokenizer: Any) -> list[Problem] | None:
    source = getattr(config, split)
    return None if source is None else load_problems(config, source, split, tokenizer)


def _hold_out(train: list[Problem], seed: int) -> tuple[list[Problem], list[Problem]]:
    """(validation, training) problems."""
    order = list(train)
    random.Random(f"{seed}:validation").shuffle(order)
    number = max(1, min(MAX_VALIDATION, round(len(order) * VALIDATION_SHARE)))
    return order[:number], order[number:]


def _distinct(problems: list[Problem]) -> list[Problem]:
    """The first problem of each key."""
    first: dict[str, Problem] = {}
    repeated = [problem for problem in problems if first.setdefault(problem.key, problem) is not problem]
    if repeated:
        _tell(
            f"data.train: {len(repeated)} of {len(problems)} rows repeat the prompt of an earlier row and were left "
            f"out; the first is {_shown(repeated[0])}"
        )
    return list(first.values())


def _without(problems: list[Problem], held: list[Problem] | None, of: str, name: str) -> list[Problem]:
    """The problems whose key none of `held` has, which are those of the setting `of`."""
    keys = {problem.key for problem in held or ()}
    shared = [problem for problem in problems if problem.key in keys]
    if shared:
        _tell(
            f"{name}: {len(shared)} of {len(problems)} prompts are in {of} too and were left out of {name}, so that "
            f"nothing is measured on problems that were trained or selected on; the first is {_shown(shared[0])}. "
            f"Remove them from the file, or give a {of} of other problems"
        )
    return [problem for problem in problems if problem.key not in keys]


def _shown(problem: Problem) -> str:
    return repr(problem.prompt[:SHOWN_CHARACTERS])


def _tell(message: str) -> None:
    if distributed.is_main():
        warnings.warn(message, stacklevel=3)


def load_problems(config: DataConfig, source: str, split: str, tokenizer: Any) -> list[Problem]:
    """The rows of one source as problems; raises ConfigError on a missing file or column, listing what there is."""
    problems = []
    for row in _rows(config, source, split):
        prompt, messages = _prompt(config, row, tokenizer)
        columns = {name: value for name, value in row.items() if name != config.prompt_column}
        key = hashlib.sha256(prompt.encode()).hexdigest()[:16]
        problems.append(Problem(str(row.get("task", config.task)), key, prompt, columns=columns, messages=messages))
    if config.max_prompt_length is None:
        return problems
    lengths = [len(ids) for ids in prompt_ids(tokenizer, [problem.prompt for problem in problems])]
    return [problem for problem, n in zip(problems, lengths, strict=True) if n <= config.max_prompt_length]


def _rows(config: DataConfig, source: str, split: str) -> Any:
    from datasets import load_dataset

    path = Path(source)
    if path.suffix in LOADERS:
        if not path.is_file():
            raise ConfigError(f"data.{split}: file {source!r} does not exist")
        return load_dataset(LOADERS[path.suffix], data_files=str(path), split="train")
    name, _, wanted = source.partition(":")
    try:
        return load_dataset(name, config.config_name, split=wanted or split)
    except Exception as error:  # the hub client raises many kinds; all of them mean the data is not there
        raise ConfigError(
            f"data.{split}: cannot load {source!r} from the hub ({' '.join(str(error).split())[:200]}). Give `name` or "
            "`name:split`, or the path of a .jsonl, .parquet or .csv file"
        ) from error


def _prompt(config: DataConfig, row: dict[str, Any], tokenizer: Any) -> tuple[str, list[dict[str, Any]] | None]:
    """The text that the model continues and, for chat, the messages that it renders."""
    prompt = _raw_prompt(config, row)
    if isinstance(prompt, str) and not config.chat:
        return prompt, None
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True), messages


def _raw_prompt(config: DataConfig, row: dict[str, Any]) -> Any:
    if config.prompt_template is not None:
        try:
            return config.prompt_template.format(**row)
        except KeyError as error:
            raise ConfigError(f"data.prompt_template: no column {error}; columns are {', '.join(row)}") from error
    if config.prompt_column not in row:
        raise ConfigError(
            f"data: no column {config.prompt_column!r}; columns are {', '.join(row)}. Set data.prompt_column or "
            "data.prompt_template"
        )
    return row[config.prompt_column]
