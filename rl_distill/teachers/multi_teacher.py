"""Several teachers at once, as one: each task has its own, or the mean of all is the teacher.

Members are teachers wherever they live, all at the student's vocabulary and at one temperature. Widths may differ.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..config import ConfigError
from ..generation.sampling import Generated, Sampling
from ..maths.lm_head import Head, HeadWeights, Mixture, slices
from . import ScoredAtOnce, Scoring, Teacher, TeacherScores

MIXTURE_LOGITS = 2**22
"""Logits of one member for one chunk of tokens when the mean distribution is formed."""


class MultiTeacher(ScoredAtOnce):
    """What the two have in common."""

    def __init__(self, members: Sequence[Teacher]) -> None:
        self.members = list(members)
        self.has_heads = all(member.lm_head_weight_VE is not None for member in members)
        self.hidden_size = sum(member.hidden_size for member in members) if self.has_heads else 0

    @property
    def tokens_scored(self) -> int:
        return sum(member.tokens_scored for member in self.members)

    def start(self, temperature: float, top_k: int) -> list[Scoring]:
        """A scoring of each member."""
        return [member.scoring(temperature=temperature, top_k=top_k) for member in self.members]

    def close(self) -> None:
        for member in self.members:
            member.close()


class RoutedTeacher(MultiTeacher):
    """Each task is taught by one member. `tasks[i]` are those of member i; at most one has none and takes the rest.

    A member's hidden states fill a block of their own among zeros, and the members' heads stand side by side: one
    product with that head is the right teacher's logits for every row, so the exact KL needs to know of no tasks, and
    a critic reads one width. Example: members of widths 2 and 3, so F = 5 and the head is (V, 5): a token of the first
    has the state [a, b, 0, 0, 0], one of the second [0, 0, c, d, e].
    """

    def __init__(self, members: Sequence[Teacher], tasks: Sequence[Sequence[str]]) -> None:
        super().__init__(members)
        self.index = {task: index for index, several in enumerate(tasks) for task in several}
        self.index_of_others = next((index for index, several in enumerate(tasks) if not several), None)
        self.fingerprint = _hash(*[member.fingerprint for member in members], str(sorted(self.index.items())))
        self._head_VF = _side_by_side(members) if self.has_heads else None

    @property
    def lm_head_weight_VE(self) -> Tensor | None:
        return self._head_VF

    def member_of(self, task: str) -> int:
        """The index of the task's teacher; raises ConfigError where it has none."""
        index = self.index.get(task, self.index_of_others)
        if index is None:
            raise ConfigError(
                f"no teacher for task {task!r}: name it in `tasks` of an entry of teachers, or leave `tasks` "
                "out of one entry, which then teaches all others"
            )
        return index

    def shares(self, tasks: Sequence[str]) -> list[list[int]]:
        """Of each member, the numbers of the rows that are its own."""
        chosen = [self.member_of(task) for task in tasks]
        return [[row for row, index in enumerate(chosen) if index == member] for member in range(len(self.members))]

    def scoring(self, tasks: Sequence[str] = (), *, temperature: float = 1.0, top_k: int = 0) -> RoutedScoring:
        return RoutedScoring(self, tasks, temperature, top_k)

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        sampling: Sampling,
        batch_size: int = 64,
        *,
        tasks: Sequence[str] = (),
    ) -> list[Generated]:
        """Each prompt is answered by its task's teacher."""
        assert len(tasks) == len(prompt_ids), (len(tasks), len(prompt_ids))
        written: dict[int, Generated] = {}
        for member, rows in zip(self.members, self.shares(tasks), strict=True):
            written |= zip(rows, member.generate([prompt_ids[row] for row in rows], sampling, batch_size), strict=True)
        return [written[row] for row in range(len(prompt_ids))]

    def in_block(self, member: int, hidden_NE: Tensor) -> Tensor:
        """hidden_NF among zeros, F the sum of all widths; empty where a member sends no hidden states."""
        if self._head_VF is None:
            return hidden_NE[:, :0]
        before = sum(other.hidden_size for other in self.members[:member])
        after = self.hidden_size - before - hidden_NE.shape[1]
        return torch.nn.functional.pad(hidden_NE.to(self._head_VF.dtype), (before, after))


class RoutedScoring:
    """Every row goes to its teacher at once; the scores are put back in the order of the rows."""

    def __init__(self, teacher: RoutedTeacher, tasks: Sequence[str], temperature: float, top_k: int) -> None:
        self.teacher, self.tasks = teacher, tasks
        self.parts = teacher.start(temperature, top_k)
        self.sizes: list[dict[int, int]] = [{} for _ in self.parts]
        """Of each member, how many completion tokens its rows have."""

    def add(
        self, rows: Sequence[int], prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]]
    ) -> None:
        shares = self.teacher.shares([self.tasks[row] for row in rows])
        for part, sizes, share in zip(self.parts, self.sizes, shares, strict=True):
            if share:
                part.add([rows[i] for i in share], [prompt_ids[i] for i in share], [completion_ids[i] for i in share])
                sizes.update((rows[i], len(completion_ids[i])) for i in share)

    def finish(self) -> TeacherScores:
        """The scores of all rows, in the order of the rows.

        Why a sort: the first member's tokens come before the second's, and the rollout wants them row after row.
        Example: rows 0 and 2 (3 and 1 tokens) are the first member's, row 1 (2 tokens) the second's: row_N is
        [0, 0, 0, 2, 1, 1], and its stable order [0, 1, 2, 4, 5, 3] puts every flat tensor of N = 6 right.
        """
        scores = [part.finish() for part in self.parts]
        row_N = torch.tensor([row for sizes in self.sizes for row in sorted(sizes) for _ in range(sizes[row])])
        order_N = row_N.argsort(stable=True).to(scores[0].logprobs_N.device)

        def merged(columns: Sequence[Tensor | None]) -> Tensor | None:
            found = [column for column in columns if column is not None]
            return torch.cat(found)[order_N] if len(found) == len(columns) else None

        hidden_NF = merged([self.teacher.in_block(i, part.hidden_NE) for i, part in enumerate(scores)])
        logprobs_N, entropy_N = merged([s.logprobs_N for s in scores]), merged([s.entropy_N for s in scores])
        assert hidden_NF is not None
        assert logprobs_N is not None
        assert entropy_N is not None
        top = (merged([s.top_ids_NK for s in scores]), merged([s.top_logprobs_NK for s in scores]))
        return TeacherScores(hidden_NF, logprobs_N, entropy_N, *top)

    @property
    def metrics(self) -> dict[str, float]:
        return numbered(self.parts)


class EnsembleTeacher(MultiTeacher):
    """The mean of the members' distributions, q = 1/K sum_k softmax(logits_k / temperature); the first writes texts.

    Hidden states and heads of all members go side by side to the student, where the exact KL forms the mean in chunks;
    a critic reads all hidden states.
    """

    def __init__(self, members: Sequence[Teacher], num_tokens_vocab: int) -> None:
        super().__init__(members)
        self.num_tokens_vocab = num_tokens_vocab
        self.fingerprint = _hash("mean", *[member.fingerprint for member in members])

    @property
    def lm_head_weight_VE(self) -> HeadWeights | None:
        return _heads(self.members) if self.has_heads else None

    def scoring(self, tasks: Sequence[str] = (), *, temperature: float = 1.0, top_k: int = 0) -> EnsembleScoring:
        return EnsembleScoring(self, temperature, top_k)

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        sampling: Sampling,
        batch_size: int = 64,
        *,
        tasks: Sequence[str] = (),
    ) -> list[Generated]:
        return self.members[0].generate(prompt_ids, sampling, batch_size)

    def mixture(self, hidden_NF: Tensor) -> Mixture:
        """The mean distribution of N tokens from the members' hidden states side by side."""
        vocab = slice(self.num_tokens_vocab)
        return Mixture.of(hidden_NF, _heads(self.members), lambda x, head: Head(x.to(head.dtype), head[vocab], None))


class EnsembleScoring:
    """All members score all rows."""

    def __init__(self, teacher: EnsembleTeacher, temperature: float, top_k: int) -> None:
        self.teacher, self.parts = teacher, teacher.start(temperature, top_k=0)
        self.temperature, self.top_k = temperature, top_k

    def add(
        self, rows: Sequence[int], prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]]
    ) -> None:
        for part in self.parts:
            part.add(rows, prompt_ids, completion_ids)

    @torch.no_grad()
    def finish(self) -> TeacherScores:
        scores = [part.finish() for part in self.parts]
        logprobs_N = torch.stack([s.logprobs_N for s in scores]).logsumexp(0) - math.log(len(scores))
        if not self.teacher.has_heads:
            return TeacherScores(logprobs_N.new_zeros(len(logprobs_N), 0), logprobs_N, torch.zeros_like(logprobs_N))
        hidden_NF = torch.cat([s.hidden_NE for s in scores], 1)
        top_k, vocab = self.top_k, self.teacher.num_tokens_vocab
        entropy, ids, top = [], [], []
        mixture = self.teacher.mixture(hidden_NF)
        for chunk in slices(len(hidden_NF), max(1, MIXTURE_LOGITS // vocab)):
            out_nV = torch.empty(len(hidden_NF[chunk]), vocab, device=hidden_NF.device)
            logq_nV = mixture.logits(chunk, self.temperature, out_nV)
            entropy.append(-(logq_nV.exp() * logq_nV).sum(-1))
            likeliest = logq_nV.topk(min(top_k, vocab), dim=-1)
            ids.append(likeliest.indices)
            top.append(likeliest.values)
        extra = (torch.cat(ids), torch.cat(top)) if top_k else ()
        return TeacherScores(hidden_NF, logprobs_N, torch.cat(entropy), *extra)

    @property
    def metrics(self) -> dict[str, float]:
        return numbered(self.parts)


def numbered(parts: Sequence[Scoring]) -> dict[str, float]:
    """The metrics of all, with the number of the teacher in front."""
    return {f"teacher_{i}/{name}": value for i, part in enumerate(parts) for name, value in part.metrics.items()}


def _side_by_side(members: Sequence[Teacher]) -> Tensor:
    """(V, sum of widths): the members' heads in one dtype, cut to the smallest vocabulary (the others' rows pad)."""
    heads = _heads(members)
    dtype = heads[0].dtype
    for head in heads[1:]:
        dtype = torch.promote_types(dtype, head.dtype)
    rows = min(len(head) for head in heads)
    return torch.cat([head[:rows].detach().to(dtype) for head in heads], 1)


def _heads(members: Sequence[Teacher]) -> list[Tensor]:
    """Of members that have one; each is a single teacher with a single head."""
    return [head for member in members if isinstance(head := member.lm_head_weight_VE, Tensor)]


def _hash(*words: str) -> str:
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]
