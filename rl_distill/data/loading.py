"""The user's own prompts, from a hub dataset or local files (sources.py), as problems of three splits.

Columns beside the prompt reach reward functions by name. Known to the graders: `answer` (math), or `test` and
`entry_point` (code, as in HumanEval); rows with neither are rewarded by similarity or by the user's functions only.
"""

from __future__ import annotations

import random
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

from .. import distributed
from ..config import ConfigError, DataConfig
from ..types import Problem, Splits
from .problems import load_problems

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VALIDATION_SHARE = 0.05
MAX_VALIDATION = 200
SHOWN_CHARACTERS = 80


def load_splits(config: DataConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> Splits:
    """Problems by split, no key in two of them, each training prompt once. What is dropped for that is reported.

    Without a validation source a share of the training prompts is held out; without a test source the validation
    problems serve as test (the report then shows them twice).
    """
    name = "data.mixture" if config.mixture else "data.train"
    train = _distinct(_train(config, tokenizer), name)
    validation = _given(config, "validation", tokenizer)
    test = _given(config, "test", tokenizer)
    train = _without(train, test, "data.test", name)
    if validation is None:
        validation, train = _hold_out(train, seed)
    else:
        validation = _without(validation, test, "data.test", "data.validation")
        train = _without(train, validation, "data.validation", name)
    if not train:
        raise ConfigError(
            f"{name}: {config.train or 'no entry'} has no prompt left to train on, without those that also stand in "
            "data.validation or data.test or are held out for validation; give more distinct prompts"
        )
    for entry in config.mixture or ():
        if not any(problem.source == entry.label for problem in train):
            raise ConfigError(f"data.mixture: {entry.train} ({entry.label}) has no prompt left to train on")
    return Splits(cold_start=[], train=train, validation=validation, test=validation if test is None else test)


def _train(config: DataConfig, tokenizer: PreTrainedTokenizerBase) -> list[Problem]:
    """The training problems, those of a mixture entry after entry, with their source."""
    if not config.mixture:
        return load_problems(config, config.train or "", "train", tokenizer)
    found = []
    for number, entry in enumerate(config.mixture):
        setting = f"data.mixture[{number}].train"
        try:
            own = load_problems(replace(config, task=entry.task), entry.train, "train", tokenizer, setting)
        except ConfigError as error:
            raise ConfigError(str(error).replace("data.train", setting)) from error
        found += [replace(problem, source=entry.label) for problem in own]
    return found


def _given(config: DataConfig, split: str, tokenizer: PreTrainedTokenizerBase) -> list[Problem] | None:
    source = getattr(config, split)
    return None if source is None else load_problems(config, source, split, tokenizer)


def _hold_out(train: list[Problem], seed: int) -> tuple[list[Problem], list[Problem]]:
    """(validation, training) problems."""
    order = list(train)
    random.Random(f"{seed}:validation").shuffle(order)
    number = max(1, min(MAX_VALIDATION, round(len(order) * VALIDATION_SHARE)))
    return order[:number], order[number:]


def _distinct(problems: list[Problem], name: str) -> list[Problem]:
    """The first problem of each key."""
    first: dict[str, Problem] = {}
    repeated = [problem for problem in problems if first.setdefault(problem.key, problem) is not problem]
    if repeated:
        _tell(
            f"{name}: {len(repeated)} of {len(problems)} rows repeat the prompt of an earlier row and were left "
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
