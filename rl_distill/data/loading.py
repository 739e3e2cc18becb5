"""The user's own prompts: a hub dataset, or a local .jsonl, .json, .parquet or .csv file, as problems.

Columns beside the prompt reach reward functions by name. Known to the graders: `answer` (math), or `test` and
`entry_point` (code, as in HumanEval); rows with neither are rewarded by similarity or by the user's functions only.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

from ..config import ConfigError, DataConfig
from ..types import Problem, Splits

LOADERS = {".jsonl": "json", ".json": "json", ".gz": "json", ".parquet": "parquet", ".csv": "csv"}
VALIDATION_SHARE = 0.05
MAX_VALIDATION = 200


def load_splits(config: DataConfig, tokenizer: Any, seed: int) -> Splits:
    """Problems by split. Without a validation source a share of the training prompts is held out; without a test source
    the validation problems serve as test (the report then shows them twice).
    """
    train = load_problems(config, str(config.train), "train", tokenizer)
    if config.validation is None:
        random.Random(f"{seed}:validation").shuffle(train)
        num_held_out = max(1, min(MAX_VALIDATION, round(len(train) * VALIDATION_SHARE)))
        validation, train = train[:num_held_out], train[num_held_out:]
    else:
        validation = load_problems(config, config.validation, "validation", tokenizer)
    test = validation if config.test is None else load_problems(config, config.test, "test", tokenizer)
    if not train:
        raise ConfigError(f"data.train: {config.train} has no prompt left to train on")
    return Splits(cold_start=[], train=train, validation=validation, test=test)


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
    lengths = [len(ids) for ids in tokenizer([problem.prompt for problem in problems])["input_ids"]]
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
