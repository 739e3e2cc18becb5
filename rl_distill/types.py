"""The nouns every part shares, and the one place where alignment is said.

ALIGNMENT  index t of every *_BT tensor is about completion token t: its log-probability, the value just before it,
           the reward that arrives after it. The mask is true through EOS inclusive. A *_N tensor holds the same
           for real tokens only, completion after completion. The score ends the episode: a scored completion is
           terminal whether it stopped or was cut by length, and nothing is bootstrapped. From an unscored one policy
           and critic learn nothing.
SHAPES     the suffix of a tensor's name, a letter per dimension:
           B completions    T completion tokens      L prompt + completion tokens   N real tokens of a batch
           V vocabulary     D student's hidden size  E teacher's hidden size        F hidden sizes of all teachers
           K numbers per token (candidate ids, or the teacher's scalars)            W a block of the vocabulary
           n, v: a chunk of N, of V. A module that needs another meaning says so in its own legend.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Finish(Enum):
    """Why a completion ended: it emitted EOS (or a stop string), or it was cut at the length limit."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True)
class Problem:
    """One prompt with what is needed to grade an answer to it.

    `key` identifies the problem whatever its wording; splits are disjoint in keys. `solution` is a reference answer
    in the form a completion should take (empty when unknown). `columns` reach reward functions by name. `messages` is
    the conversation that `prompt` renders, where it is chat. `source` names the entry of data.mixture it came from.
    `teacher_right`: whether the teacher's own answer passed the check; None where that is not known.
    """

    task: str
    key: str
    prompt: str
    solution: str = ""
    columns: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] | None = None
    source: str = ""
    teacher_right: bool | None = None


@dataclass(frozen=True)
class Completion:
    """One generated answer. `token_ids` ends with EOS exactly when `finish` is STOP by EOS."""

    text: str
    token_ids: list[int]
    finish: Finish


@dataclass(frozen=True)
class Splits:
    """Problems of a run. `cold_start` prompts are those the teacher writes for; RL's `train` prompts are others."""

    cold_start: list[Problem]
    train: list[Problem]
    validation: list[Problem]
    test: list[Problem]
