"""A teacher behind an HTTP server: log-probabilities of the student's tokens, and of the teacher's likeliest ones.

No hidden states come back, so the anchor is estimated from the sampled tokens or from the top k, and the critic is the
student's own. Each row is a request, sent as soon as the row is sampled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from .. import distributed
from ..config import TeacherServerConfig
from ..generation.sampling import Generated, Sampling
from ..types import Finish
from . import CollectedRows, ScoredAtOnce, TeacherScores
from .http_api.client import TeacherHTTPClient


@dataclass(frozen=True)
class RowScores:
    """Of one completion: log-probability of each token, and the k likeliest ids with theirs."""

    logprobs: list[float]
    top_ids: list[list[int]]
    top_logprobs: list[list[float]]


NOTHING_ELSE = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""Sent with every request for a text: `vllm serve` would take what is left out from the model's generation_config."""


class RemoteTeacher(ScoredAtOnce):
    """The teacher at temperature 1: a server's prompt log-probabilities know no other."""

    lm_head_weight_VE = None
    hidden_size = 0

    def __init__(self, settings: TeacherServerConfig) -> None:
        self.server = TeacherHTTPClient(settings)
        self.pool = ThreadPoolExecutor(settings.num_connections, thread_name_prefix="teacher")
        self.fingerprint = hashlib.sha256(f"{self.server.url} {self.server.model}".encode()).hexdigest()[:16]
        self.tokens_scored = 0

    def scoring(self, tasks: Sequence[str] = (), *, temperature: float = 1.0, top_k: int = 0) -> RemoteScoring:
        assert temperature == 1, temperature  # config/checks.py refuses others
        return RemoteScoring(self, top_k)

    def score_row(self, prompt_ids: Sequence[int], completion_ids: Sequence[int], top_k: int) -> RowScores:
        """One request: the row as a prompt, with the log-probabilities of its tokens."""
        choice = self.server.complete(
            prompt=[*prompt_ids, *completion_ids], max_tokens=1, temperature=0.0, prompt_logprobs=top_k
        )
        return read_row(choice["prompt_logprobs"][len(prompt_ids) :], completion_ids, top_k)

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        sampling: Sampling,
        batch_size: int = 64,
        *,
        tasks: Sequence[str] = (),
    ) -> list[Generated]:
        """The teacher's own completions; the server decides how many it makes at a time."""
        return list(self.pool.map(lambda row: self._write(row, prompt_ids[row], sampling), range(len(prompt_ids))))

    def _write(self, row: int, prompt_ids: Sequence[int], sampling: Sampling) -> Generated:
        choice = self.server.complete(
            prompt=list(prompt_ids),
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=row,
            return_token_ids=True,
            **NOTHING_ELSE,
        )
        return Generated(choice["token_ids"], Finish.STOP if choice["finish_reason"] == "stop" else Finish.LENGTH)

    def close(self) -> None:
        self.pool.shutdown()


class RemoteScoring(CollectedRows):
    """Rows are on their way to the server as soon as they are added."""

    def __init__(self, teacher: RemoteTeacher, top_k: int) -> None:
        super().__init__()
        self.teacher, self.top_k = teacher, top_k
        self.futures: list[Future[RowScores]] = []
        self.metrics: dict[str, float] = {}

    def add(
        self, rows: Sequence[int], prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]]
    ) -> None:
        super().add(rows, prompt_ids, completion_ids)
        for prompt, completion in zip(prompt_ids, completion_ids, strict=True):
            self.futures.append(self.teacher.pool.submit(self.teacher.score_row, prompt, completion, self.top_k))
            self.teacher.tokens_scored += len(prompt) + len(completion)

    def finish(self) -> TeacherScores:
        order = sorted(range(len(self.rows)), key=self.rows.__getitem__)
        scored = [self.futures[i].result() for i in order]
        device, top_k = distributed.device(), self.top_k
        logprobs_N = torch.tensor([value for row in scored for value in row.logprobs], device=device)
        hidden_N0 = logprobs_N.new_zeros(len(logprobs_N), 0)
        if not top_k:
            return TeacherScores(hidden_N0, logprobs_N, torch.zeros_like(logprobs_N))
        top_ids_NK = torch.tensor([ids for row in scored for ids in row.top_ids], dtype=torch.long, device=device)
        top_NK = torch.tensor([values for row in scored for values in row.top_logprobs], device=device)
        top_ids_NK, top_NK = top_ids_NK.view(len(logprobs_N), top_k), top_NK.view(len(logprobs_N), top_k)
        return TeacherScores(hidden_N0, logprobs_N, -(top_NK.exp() * top_NK).sum(1), top_ids_NK, top_NK)


def read_row(entries: Sequence[dict[str, Any]], token_ids: Sequence[int], top_k: int) -> RowScores:
    """RowScores of `prompt_logprobs`: per token a map of ids, as text, to `logprob` and `rank`, the likeliest k and the
    token itself. Raises KeyError where the token is missing.
    """
    logprobs = [entry[str(token)]["logprob"] for entry, token in zip(entries, token_ids, strict=True)]
    ranked = [sorted(entry.items(), key=lambda item: item[1]["rank"])[:top_k] for entry in entries]
    ids = [[int(token) for token, _ in row] for row in ranked]
    return RowScores(logprobs, ids, [[value["logprob"] for _, value in row] for row in ranked])
