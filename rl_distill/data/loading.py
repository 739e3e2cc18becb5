"""The user's own prompts, from a hub dataset or local files (sources.py), as problems of three splits.

Columns beside the prompt reach reward functions by name. Known to the graders: `answer` (math), or `test` and
`entry_point` (code, as in HumanEval); rows with neither are rewarded by similarity or by the user's functions only.
"""

from __future__ import annotations

import random
from typing import Any

from ..config import ConfigError, DataConfig
from ..types import Splits
from .problems import load_problems

VALIDATION_SHARE = 0.05
MAX_VALIDATION = 200


def load_splits(config: DataConfig, tokenizer: Any, seed: int) -> Splits:
    """Problems by split. Without a validation source a share of the training prompts is held out; without a test source
    the validation problems serve as test (the report then shows them twice).
    """
    train = load_problems(config, config.train or "", "train", tokenizer)
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
