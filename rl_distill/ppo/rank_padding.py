"""Where rows do not divide over the processes: every process does as many forward and backward passes all the same.

Processes meet in collectives (gradients, ZeRO-3's weights), so one with fewer rows fills up with passes that count for
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from .. import distributed
from ..config import ConfigError, RunConfig
from .minibatches import micro_batches
from .rollout_building import Rollout


def rows_per_minibatch(config: RunConfig) -> int:
    """The most rows of a minibatch that one process can have.

    Where each minibatch divides over the processes all have the same; else its rows are where the shuffle put them.
    """
    batch, size = config.ppo.batch_size, config.ppo.batch_size // config.ppo.num_minibatches
    processes = distributed.world_size()
    return size // processes if is_even(config) else min(size, math.ceil(batch / processes))


def is_even(config: RunConfig) -> bool:
    """True where every process has the same number of rows of each minibatch."""
    size = config.ppo.batch_size // config.ppo.num_minibatches
    return distributed.group_count(size) % distributed.world_size() == 0


def micro_batches_per_update(config: RunConfig, longest_row: int) -> int:
    """The most micro-batches of a minibatch that one process can have, with rows of up to so many tokens."""
    ppo, rows = config.ppo, rows_per_minibatch(config)
    if ppo.micro_batch_tokens is None:
        return math.ceil(rows / ppo.micro_batch_size)
    return math.ceil(rows / max(1, ppo.micro_batch_tokens // longest_row))  # every piece but the last has as many rows


class PaddedMicroBatches:
    """Micro-batches of a rollout, `number` for each minibatch on every process; to be made by all processes at once.

    With a budget of tokens the pieces that a minibatch needs differ from one to the next: the first of the `number` are
    then empty dicts on all processes alike, for which nothing is to be computed.
    """

    def __init__(
        self, rollout: Rollout, config: RunConfig, pad_token_id: int, number: int, packed: bool = False
    ) -> None:
        self.rollout, self.config, self.pad_token_id, self.number = rollout, config, pad_token_id, number
        self.packed = packed
        self.filler: dict[str, Any] = {}
        self.by_tokens = config.ppo.micro_batch_tokens is not None
        if not is_even(config) or (self.by_tokens and distributed.world_size() > 1):
            row = micro_batches(rollout, [0], config, pad_token_id)[0]
            endless = torch.full_like(row["count"], math.inf)  # every sum over it is divided away
            self.filler = row | {"count": endless, "trained_count": endless}

    # Why fillers: backward passes are collective, so every process must make as many, whatever rows it has. One with
    # fewer pieces repeats a real row whose token count is infinite: its loss and its gradient are exactly 0. Example:
    # needed 3, own pieces 2: [piece, piece, filler]; by tokens and with `number` 4: [{}, piece, piece, filler].
    def micro_batches(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Those of this process's `rows` of one minibatch, which may be none."""
        pieces = micro_batches(self.rollout, rows, self.config, self.pad_token_id, self.packed)
        needed = max(distributed.gather_list([len(pieces)])) if self.by_tokens else self.number
        assert len(pieces) == needed <= self.number or self.filler, (len(pieces), needed, self.number)
        empty: list[dict[str, Any]] = [{}] * (self.number - needed)
        return empty + pieces + [self.filler] * (needed - len(pieces))


def check_rows(config: RunConfig) -> None:
    """Raises ValueError where the rows of a rollout cannot be shared out over the processes of this run."""
    ppo, processes = config.ppo, distributed.world_size()
    if ppo.batch_size < processes:
        raise ConfigError(f"ppo.batch_size ({ppo.batch_size}) is below the number of processes ({processes})")
    engine, vllm = config.generation.engine, config.generation.vllm
    if (engine == "vllm_server" or vllm.tensor_parallel_size > 1) and ppo.batch_size % processes:
        raise ConfigError(  # TRL hands each process the slice at its number x its own count of prompts
            f"generation.engine: {engine} needs as many rows in every process: make ppo.batch_size "
            f"({ppo.batch_size}) a multiple of the number of processes ({processes})"
        )
    starts = [distributed.share(ppo.batch_size, rank).start for rank in range(processes)]
    if ppo.advantage == "group_mean" and any(start % ppo.group_size for start in starts):
        raise ConfigError(
            f"ppo.advantage: group_mean compares the {ppo.group_size} completions of a prompt in one process: "
            f"ppo.batch_size / ppo.group_size = {ppo.batch_size // ppo.group_size} prompts must divide over {processes}"
        )
