"""From a rollout to what the loss reads: minibatches of rows, micro-batches of similar length over their real tokens.

The order is fixed by (seed, step, epoch). Any number of processes forms the same minibatches.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from .. import distributed
from ..config import RunConfig
from ..maths.batching import length_sorted, token_batch
from .rollout_building import Rollout


def minibatches(rollout: Rollout, config: RunConfig, epoch: int) -> Iterator[list[int]]:
    """This process's rows of each minibatch, reshuffled per epoch; every row once.

    Rows are shuffled within contiguous lanes, so that any number of processes forms the same minibatches.
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


def micro_batches(rollout: Rollout, rows: Sequence[int], config: RunConfig, pad_token_id: int) -> list[dict[str, Any]]:
    """The minibatch in pieces of micro_batch_size rows of similar length, as tensors over their real tokens.

    `count` is the number of real tokens of the whole minibatch over all processes: what every sum is divided by.
    """
    lengths = [len(rollout.prompt_ids[row]) + len(rollout.completions[row].token_ids) for row in rows]
    count = distributed.sum_over_processes(rollout.mask_BT[torch.tensor(rows)].sum().double()).float()
    pieces = []
    for picks in length_sorted(lengths, config.ppo.micro_batch_size):
        chosen = [rows[pick] for pick in picks]
        batch = token_batch(
            [rollout.prompt_ids[row] for row in chosen],
            [rollout.completions[row].token_ids for row in chosen],
            pad_token_id,
        )
        index = torch.tensor(chosen, device=rollout.mask_BT.device)
        mask_BT = rollout.mask_BT[index]
        spread = mask_BT.new_ones(mask_BT.shape[1], dtype=torch.float32)[None, :]
        pieces.append(
            {
                "input_ids_BL": batch.input_ids_BL,
                "state_index_N": batch.state_index_N,
                "targets_N": batch.targets_N,
                "old_logprobs_N": rollout.logprobs_BT[index][mask_BT],
                "old_values_N": rollout.values_BT[index][mask_BT],
                "advantages_N": rollout.advantages_BT[index][mask_BT],
                "returns_N": rollout.returns_BT[index][mask_BT],
                "teacher_logprobs_N": rollout.teacher_logprobs_BT[index][mask_BT],
                "anchor_N": (rollout.anchor_B[index][:, None] * spread)[mask_BT],
                "scored_N": (rollout.scored_B.to(index.device)[index][:, None] * spread)[mask_BT].bool(),
                "teacher_hidden_NE": rollout.teacher_hidden_BTE[index][mask_BT],
                "teacher_scalars_NK": rollout.teacher_scalars_BTK[index][mask_BT],
                "count": count,
                "temperature": rollout.temperature,
            }
        )
        if rollout.teacher_top_ids_BTK is not None and rollout.teacher_top_logprobs_BTK is not None:
            pieces[-1]["teacher_top_ids_NK"] = rollout.teacher_top_ids_BTK[index][mask_BT]
            pieces[-1]["teacher_top_logprobs_NK"] = rollout.teacher_top_logprobs_BTK[index][mask_BT]
    return pieces
