"""From a rollout to what the loss reads: minibatches of rows, micro-batches of similar length over their real tokens.

The order is fixed by (seed, step, epoch). Any number of processes forms the same minibatches.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import distributed
from ..config import RunConfig
from ..maths.batching import length_sorted, packed_batch, places_of_rows, token_batch, within_tokens
from .rollout_building import Rollout


def minibatches(rollout: Rollout, config: RunConfig, epoch: int) -> Iterator[list[int]]:
    """This process's rows of each minibatch, reshuffled per epoch; every row once.

    Why lanes: a process holds a contiguous block of the rollout's rows and moves none, and a shuffle of the whole would
    give it a different number of rows in each minibatch. Rows are shuffled within contiguous lanes instead, and each
    minibatch takes as many from every lane. Example: 8 rows, minibatches of 4, 4 lanes of 2 rows: minibatch 0 may be
    [1, 2, 5, 6], which is rows 1 and 2 of each of two processes.
    """
    ppo = config.ppo
    size = ppo.batch_size // ppo.num_minibatches
    lanes = distributed.group_count(size)
    lane_rows = ppo.batch_size // lanes
    orders = []
    for lane in range(lanes):
        order = list(range(lane * lane_rows, (lane + 1) * lane_rows))
        random.Random(f"{config.seed}:minibatch:{rollout.step}:{epoch}:{lane}").shuffle(order)
        orders.append(order)
    mine = distributed.my_rows(ppo.batch_size)
    per_lane = size // lanes
    for start in range(0, lane_rows, per_lane):
        rows = [row for order in orders for row in order[start : start + per_lane] if row in mine]
        yield [row - mine.start for row in rows]


def micro_batches(
    rollout: Rollout, rows: Sequence[int], config: RunConfig, pad_token_id: int, packed: bool = False
) -> list[dict[str, Any]]:
    """The minibatch, which may have no row here, in pieces of rows of similar length, over their real tokens: of
    micro_batch_size rows, or as many as fit into micro_batch_tokens. To be called by all processes at once.
    `packed`: short rows share one of the batch.

    Sums are divided by numbers of tokens of the whole minibatch over all processes: `count` of all, `trained_count` of
    those that policy and critic learn from.
    """
    counts = distributed.sum_over_processes(token_counts(rollout, rows)).float().clamp(min=1)
    lengths = [len(rollout.prompt_ids[row]) + len(rollout.completions[row].token_ids) for row in rows]
    pieces = []
    budget = config.ppo.micro_batch_tokens
    batches = length_sorted(lengths, config.ppo.micro_batch_size) if budget is None else within_tokens(lengths, budget)
    for picks in batches:
        piece = _piece(rollout, [rows[pick] for pick in picks], pad_token_id, packed)
        pieces.append(piece | {"count": counts[0], "trained_count": counts[1]})
    return pieces


def token_counts(rollout: Rollout, rows: Sequence[int]) -> Tensor:
    """[tokens of these rows, those of them that policy and critic learn from]."""
    lengths_B = torch.tensor(rollout.lengths, dtype=torch.float64)[list(rows)]
    return torch.stack([lengths_B.sum(), (lengths_B * rollout.trained_B.cpu()[list(rows)]).sum()])


def _piece(rollout: Rollout, rows: Sequence[int], pad_token_id: int, packed: bool) -> dict[str, Any]:
    """One micro-batch of these rows, without its counts."""
    states, teacher = rollout.states, rollout.states.teacher
    batch = (packed_batch if packed else token_batch)(
        [rollout.prompt_ids[row] for row in rows], [rollout.completions[row].token_ids for row in rows], pad_token_id
    )
    tokens: dict[str, Tensor | None] = {
        "old_logprobs_N": states.logprobs_N,
        "old_values_N": states.values_N,
        "advantages_N": rollout.advantages_N,
        "returns_N": rollout.returns_N,
        "anchor_N": rollout.anchor_N,
        "trained_N": rollout.trained_N,
        "teacher_logprobs_N": teacher.logprobs_N,
        "teacher_hidden_NE": teacher.hidden_NE,
        "teacher_scalars_NK": states.teacher_scalars_NK,
        "teacher_top_ids_NK": teacher.top_ids_NK,
        "teacher_top_logprobs_NK": teacher.top_logprobs_NK,
    }
    places_N = places_of_rows(rollout.lengths, rows).to(states.logprobs_N.device)
    chosen = {name: tensor[places_N] for name, tensor in tokens.items() if tensor is not None}
    of_batch = {name: tensor for name, tensor in vars(batch).items() if tensor is not None}
    return of_batch | {"temperature": rollout.temperature} | chosen
