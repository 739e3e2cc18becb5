"""The student's end of a teacher that runs in dedicated processes of the same launch.

Token ids go over, final hidden states and three numbers per token come back; the teacher's head comes over once, so the
exact KL needs nothing of the vocabulary's size. Rows are shared out over the teacher's processes, which score while
the student samples on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import distributed
from ..distributed import PendingTransfer, TeacherLink
from ..generation.sampling import Generated, Sampling
from ..types import Finish
from . import CollectedRows, ScoredAtOnce, TeacherScores

NUM_STATS = 2
"""Numbers per token beside the hidden state: log-probability and entropy."""


class DedicatedTeacher(ScoredAtOnce):
    """Asks the teacher's processes over the link; they load the model from `folder`, which all must reach.

    The processes may hold several models: `settings` are those of this one (a TeacherConfig as a dict). Its texts
    end at `eos_token_ids`, the student's, as well as at its own.
    """

    def __init__(
        self, link: TeacherLink, folder: str, settings: dict[str, Any], eos_token_ids: Sequence[int] = ()
    ) -> None:
        self.link, self.ranks, self.folder = link, list(link.launch.teacher_ranks), folder
        self.tokens_scored = 0
        wanted = {"model": folder, "settings": settings, "eos_token_ids": list(eos_token_ids)}
        number = link.ask("load", **wanted) if distributed.is_main() else None
        facts = link.replies(distributed.from_main(number), self.ranks)[0]
        self.fingerprint: str = facts["fingerprint"]
        self.vocab_size, self.hidden_size = facts["head_shape"]
        self.dtype: torch.dtype = getattr(torch, facts["dtype"])
        number = link.ask("head", model=folder)
        head = link.receive((self.vocab_size, self.hidden_size), self.dtype, self.ranks[0], number)
        self._head_VE = head.wait().to(distributed.device())

    @property
    def lm_head_weight_VE(self) -> Tensor:
        return self._head_VE

    def scoring(self, tasks: Sequence[str] = (), *, temperature: float = 1.0, top_k: int = 0) -> DedicatedScoring:
        return DedicatedScoring(self, temperature, top_k)

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        sampling: Sampling,
        batch_size: int = 64,
        *,
        tasks: Sequence[str] = (),
    ) -> list[Generated]:
        """The teacher's own completions, its processes sharing the rows; seeded by row as those of a shared teacher."""
        number = self.link.ask(
            "generate",
            model=self.folder,
            prompt_ids=[list(ids) for ids in prompt_ids],
            sampling=vars(sampling),
            batch_size=batch_size,
        )
        written: dict[int, Generated] = {}
        for reply in self.link.replies(number, self.ranks):
            for row, ids, finish in reply:
                written[row] = Generated(ids, Finish(finish))
        return [written[row] for row in range(len(prompt_ids))]

    def close(self) -> None:
        """The teacher's processes forget the model; to be called by all student processes, after their last request."""
        distributed.barrier()
        if distributed.is_main():
            self.link.ask("unload", model=self.folder)


class DedicatedScoring(CollectedRows):
    """Each `add` is sent at once, as a separate request."""

    def __init__(self, teacher: DedicatedTeacher, temperature: float, top_k: int) -> None:
        super().__init__()
        self.teacher, self.link = teacher, teacher.link
        self.temperature, self.top_k = temperature, top_k
        self.num_tokens = 0
        self.leaving: list[PendingTransfer] = []
        self.arriving: list[tuple[list[int], list[PendingTransfer]]] = []

    def add(
        self, rows: Sequence[int], prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]]
    ) -> None:
        first, ranks = len(self.rows), self.teacher.ranks
        super().add(rows, prompt_ids, completion_ids)
        order = sorted(
            range(first, len(self.rows)), key=lambda i: len(self.prompt_ids[i]) + len(self.completion_ids[i])
        )
        shares = [order[index :: len(ranks)] for index in range(len(ranks))]
        packed = [pack([(self.prompt_ids[i], self.completion_ids[i]) for i in share]) for share in shares]
        number = self.link.ask(
            "score",
            model=self.teacher.folder,
            temperature=self.temperature,
            top_k=self.top_k,
            shares=[[len(share), len(ids)] for share, ids in zip(shares, packed, strict=True)],
        )
        for rank, share, ids in zip(ranks, shares, packed, strict=True):
            if share:
                self.leaving.append(self.link.send(ids, rank, number))
                self.arriving.append((share, self._receive(share, rank, number)))
        self.teacher.tokens_scored += sum(len(self.prompt_ids[i]) + len(self.completion_ids[i]) for i in order)

    def _receive(self, share: list[int], rank: int, number: int) -> list[PendingTransfer]:
        shapes = self._shapes(sum(len(self.completion_ids[i]) for i in share))
        return [self.link.receive(shape, dtype, rank, number, i) for i, (shape, dtype) in enumerate(shapes)]

    def _shapes(self, count: int) -> list[tuple[tuple[int, int], torch.dtype]]:
        """Of what comes back: hidden states, a row of numbers per token, the likeliest ids where they are asked for."""
        top_k = self.top_k
        shapes: list[tuple[tuple[int, int], torch.dtype]] = [
            ((count, self.teacher.hidden_size), self.teacher.dtype),
            ((count, NUM_STATS + top_k), torch.float32),
        ]
        return [*shapes, ((count, top_k), torch.int32)] if top_k else shapes

    def finish(self) -> TeacherScores:
        pieces: dict[int, list[Tensor]] = {}
        for share, crossings in self.arriving:
            sizes = [len(self.completion_ids[i]) for i in share]
            parts = [crossing.wait().to(distributed.device()).split(sizes) for crossing in crossings]
            for i, *columns in zip(share, *parts, strict=True):
                pieces[self.rows[i]] = columns
        for crossing in self.leaving:
            crossing.wait()
        by_kind = zip(*(pieces[row] for row in sorted(pieces)), strict=True)
        hidden_NE, stats_NK, *ids = [torch.cat(tensors) for tensors in by_kind] or self._nothing()
        self.num_tokens = len(hidden_NE)
        top_ids_NK, top_logprobs_NK = (ids[0].long(), stats_NK[:, NUM_STATS:]) if ids else (None, None)
        return TeacherScores(hidden_NE, stats_NK[:, 0], stats_NK[:, 1], top_ids_NK, top_logprobs_NK)

    def _nothing(self) -> list[Tensor]:
        return [torch.empty(shape, dtype=dtype, device=distributed.device()) for shape, dtype in self._shapes(0)]

    @property
    def metrics(self) -> dict[str, float]:
        """Bytes over the link for this rollout, and how many times as many the logits would have been."""
        crossings = [*self.leaving, *(crossing for _, several in self.arriving for crossing in several)]
        crossed = sum(crossing.tensor.nbytes for crossing in crossings)
        logits = self.num_tokens * self.teacher.vocab_size * self.teacher.dtype.itemsize
        totals = distributed.sum_over_processes(torch.tensor([crossed, logits], dtype=torch.float64)).tolist()
        return {"link/mib": totals[0] / 2**20, "link/times_less_than_logits": totals[1] / max(totals[0], 1)}


def pack(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Tensor:
    """int32: the lengths of prompt and completion of every row, then all ids in the same order."""
    lengths = [len(ids) for pair in pairs for ids in pair]
    return torch.tensor(lengths + [token for pair in pairs for ids in pair for token in ids], dtype=torch.int32)


def unpack(packed: Tensor, num_rows: int) -> tuple[list[list[int]], list[list[int]]]:
    """(prompt ids, completion ids) of `pack`."""
    numbers: list[Any] = packed.tolist()
    lengths, ids = numbers[: 2 * num_rows], iter(numbers[2 * num_rows :])
    parts = [[next(ids) for _ in range(length)] for length in lengths]
    return parts[0::2], parts[1::2]
