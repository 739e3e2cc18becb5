"""A teacher that no single GPU holds: its weights are sharded over the processes, which score and generate in lockstep.

The head stays whole on each, as the exact KL needs it there. Loading takes the whole model in CPU memory, once per
process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .. import distributed
from ..generation.sampling import Generated, Sampling
from . import TeacherScores
from .colocated import ColocatedTeacher

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Zero3ShardedTeacher(ColocatedTeacher):
    """All processes of its side have to call `score` and `generate` equally often, each with its own rows or none."""

    def __init__(self, model: PreTrainedModel, **options: Any) -> None:
        super().__init__(model, **options)
        untie_head(model)
        model.get_output_embeddings().to(distributed.device())
        distributed.shard(model.get_decoder(), self.hidden_size)

    @property
    def device(self) -> torch.device:
        return distributed.device()

    def batches(self, lengths: Sequence[int]) -> Iterable[list[int]]:
        return distributed.in_step(list(super().batches(lengths)))

    def score(
        self,
        prompt_ids: Sequence[Sequence[int]],
        completion_ids: Sequence[Sequence[int]],
        *,
        tasks: Sequence[str] = (),
        temperature: float = 1.0,
        top_k: int = 0,
        states_only: bool = False,
    ) -> TeacherScores:
        """TeacherScores of this process's completion tokens; without rows it takes part in the others' forwards."""
        if prompt_ids:
            return super().score(
                prompt_ids, completion_ids, temperature=temperature, top_k=top_k, states_only=states_only
            )
        padding, before = [[self.pad_token_id]], self.tokens_scored
        super().score(padding, padding)
        self.tokens_scored = before
        return self.no_scores(top_k)

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        sampling: Sampling,
        batch_size: int = 64,
        *,
        seeds: Sequence[int] | None = None,
        tasks: Sequence[str] = (),
    ) -> list[Generated]:
        """The completions of this process's prompts; every process writes those of all, so that they stay in step."""
        mine = list(zip(map(tuple, prompt_ids), range(len(prompt_ids)) if seeds is None else seeds, strict=True))
        every = list(dict.fromkeys(distributed.gather_list(mine)))
        everything = super().generate(
            [ids for ids, _ in every], sampling, batch_size, seeds=[seed for _, seed in every]
        )
        written = dict(zip(every, everything, strict=True))
        return [written[row] for row in mine]


def untie_head(model: PreTrainedModel) -> None:
    """Gives the language-model head its own copy of the weight if it is tied to the embedding."""
    head: nn.Linear = model.get_output_embeddings()
    if head.weight is model.get_input_embeddings().weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
