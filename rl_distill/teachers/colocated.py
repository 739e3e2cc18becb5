"""The teacher in the student's own processes: frozen, scored in micro-batches of similar length.

Assumes the student's tokenizer. bf16 autocast is used for scoring where the hardware makes it faster.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import distributed
from ..config import RunConfig
from ..generation.sampling import Generated, Sampling, generate
from ..maths.batching import length_sorted, token_batch
from ..maths.logprobs import token_statistics
from ..models.actor_critic import freeze
from ..models.heads import check_bias, check_head
from ..models.loading import text_config
from ..models.tokenizers import num_token_ids
from . import CollectedRows, TeacherScores

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOP_K_LOGITS = 2**22
"""Logits of one chunk when the likeliest ids are looked for."""


class ColocatedTeacher:
    """A causal LM of transformers on the student's device."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        eos_token_ids: Sequence[int],
        pad_token_id: int,
        micro_batch_size: int = 64,
        autocast: bool = False,
        num_tokens_vocab: int | None = None,
    ) -> None:
        self.model = freeze(model)
        self.hidden_size: int = text_config(model).hidden_size
        self.eos_token_ids, self.pad_token_id = list(eos_token_ids), pad_token_id
        self.micro_batch_size = micro_batch_size
        self.autocast = autocast
        self.num_tokens_vocab = num_tokens_vocab
        self.fingerprint = fingerprint(model)
        self.tokens_scored = 0
        """Prompt and completion tokens that went through `score` so far."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def lm_head_weight_VE(self) -> Tensor:
        return self.model.get_output_embeddings().weight

    def _precision(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16) if self.autocast else contextlib.nullcontext()

    # Why sorted batches and pieces: rows of similar length share a batch, so that little padding is scored, and scores
    # are put back by row number. Example: completions of 3, 1 and 2 tokens may be scored as rows (1, 2) and (0); what
    # comes back is hidden_NE of 3 + 1 + 2 = 6 rows in the caller's order.
    @torch.no_grad()
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
        """TeacherScores of every completion token, in the order of the completions.

        `states_only` leaves the head out: log-probabilities and entropy are NaN, for a caller who applies the head.
        """
        if not prompt_ids:
            return self.no_scores(top_k)
        lengths = [len(p) + len(c) for p, c in zip(prompt_ids, completion_ids, strict=True)]
        self.tokens_scored += sum(lengths)
        pieces: dict[int, tuple[Tensor, ...]] = {}
        for rows in self.batches(lengths):
            sizes = [len(completion_ids[row]) for row in rows]
            chosen = [prompt_ids[row] for row in rows], [completion_ids[row] for row in rows]
            scores = self._score_batch(*chosen, temperature, states_only)
            for row, *parts in zip(rows, *(part.split(sizes) for part in scores), strict=True):
                pieces[row] = tuple(parts)
        columns = zip(*(pieces[row] for row in range(len(lengths))), strict=True)
        scored = TeacherScores(*(torch.cat(column) for column in columns))
        return self._with_top_k(scored, temperature, top_k) if top_k else scored

    def batches(self, lengths: Sequence[int]) -> Iterable[list[int]]:
        """The row numbers of each forward pass."""
        return length_sorted(lengths, self.micro_batch_size)

    def no_scores(self, top_k: int) -> TeacherScores:
        """Those of no rows."""
        weight_VE = self.lm_head_weight_VE
        none_N = torch.empty(0, device=weight_VE.device)
        scores = TeacherScores(weight_VE.new_empty(0, self.hidden_size), none_N, none_N)
        if not top_k:
            return scores
        none_NK = none_N.view(0, top_k)
        return replace(scores, top_ids_NK=none_NK.long(), top_logprobs_NK=none_NK)

    def _with_top_k(self, scores: TeacherScores, temperature: float, top_k: int) -> TeacherScores:
        """The scores with the teacher's likeliest ids; logits live for one chunk of tokens at a time."""
        head, ids, logprobs = self.model.get_output_embeddings(), [], []
        weight_VE = head.weight[: self.num_tokens_vocab]
        bias_V = None if head.bias is None else head.bias[: self.num_tokens_vocab]
        for hidden_nE in scores.hidden_NE.split(max(1, TOP_K_LOGITS // len(weight_VE))):
            logits_nV = torch.nn.functional.linear(hidden_nE, weight_VE, bias_V).float() / temperature
            top = logits_nV.log_softmax(-1).topk(min(top_k, len(weight_VE)), dim=-1)
            ids.append(top.indices)
            logprobs.append(top.values)
        return replace(scores, top_ids_NK=torch.cat(ids), top_logprobs_NK=torch.cat(logprobs))

    def _score_batch(
        self, prompts: list, completions: list, temperature: float, states_only: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch = token_batch(prompts, completions, self.pad_token_id)
        with self._precision():
            input_ids = batch.input_ids_BL.to(self.device)
            hidden_BLE = self.model.get_decoder()(input_ids=input_ids, use_cache=False).last_hidden_state
        hidden_NE = hidden_BLE.reshape(-1, hidden_BLE.shape[-1])[batch.state_index_N.to(self.device)]
        head = self.model.get_output_embeddings()
        hidden_NE = hidden_NE.to(head.weight.dtype)
        if states_only:
            dtype = torch.promote_types(hidden_NE.dtype, torch.float32)
            unknown_N = hidden_NE.new_full((len(hidden_NE),), torch.nan, dtype=dtype)
            return hidden_NE, unknown_N, unknown_N
        stats = token_statistics(
            hidden_NE,
            head.weight,
            batch.targets_N.to(self.device),
            bias=head.bias,
            temperature=temperature,
            num_tokens_vocab=self.num_tokens_vocab,
        )
        return hidden_NE, stats.logprobs_N, stats.entropy_N

    def scoring(self, tasks: Sequence[str] = (), *, temperature: float = 1.0, top_k: int = 0) -> DeferredScoring:
        return DeferredScoring(self, temperature, top_k)

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        sampling: Sampling,
        batch_size: int = 64,
        *,
        seeds: Sequence[int] | None = None,
        tasks: Sequence[str] = (),
    ) -> list[Generated]:
        """The teacher's own completions; seeded by row (or by `seeds`), so a resumed run gets the same."""
        return generate(
            self.model,
            prompt_ids,
            sampling,
            eos_token_ids=self.eos_token_ids,
            pad_token_id=self.pad_token_id,
            seeds=seeds,
            batch_size=batch_size,
            vocab_size=self.num_tokens_vocab,
        )

    def close(self) -> None:
        """Nothing runs beside the student's processes."""


class DeferredScoring(CollectedRows):
    """Scores all rows at the end, in one go: this process has no teacher that could work meanwhile."""

    def __init__(self, teacher: ColocatedTeacher, temperature: float, top_k: int) -> None:
        super().__init__()
        self.teacher, self.temperature, self.top_k = teacher, temperature, top_k
        self.states_only = False
        """To be set where the student's pass applies the teacher's head in any case (see ColocatedTeacher.score)."""
        self.metrics: dict[str, float] = {}

    def finish(self) -> TeacherScores:
        order = sorted(range(len(self.rows)), key=self.rows.__getitem__)
        return self.teacher.score(
            [self.prompt_ids[i] for i in order],
            [self.completion_ids[i] for i in order],
            temperature=self.temperature,
            top_k=self.top_k,
            states_only=self.states_only,
        )


def make_teacher(
    config: RunConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    kind: type[ColocatedTeacher] = ColocatedTeacher,
) -> ColocatedTeacher:
    """The teacher in this process; raises ConfigError on a head that is more than a product with a weight."""
    if kind is ColocatedTeacher:
        check_head(model, "teacher", bias_allowed=False)
    else:  # one to be sharded is too large to be run here
        check_bias(model, "teacher")
    wanted = config.teacher.autocast
    return kind(
        model,
        eos_token_ids=[tokenizer.eos_token_id],
        pad_token_id=tokenizer.pad_token_id,
        micro_batch_size=config.teacher.micro_batch_size,
        autocast=wanted == "on" or (wanted == "auto" and distributed.fast_bf16(distributed.device())),
        num_tokens_vocab=num_token_ids(tokenizer),
    )


@torch.no_grad()
def fingerprint(model: PreTrainedModel) -> str:
    """A short hash of the weights: the config, and every parameter's name, shape, sums and some of its values."""
    digest = hashlib.sha256(str(sorted(model.config.to_diff_dict().items())).encode())
    for name, parameter in model.named_parameters():
        sums = parameter.double().sum().item(), parameter.double().abs().sum().item()
        some = parameter.detach().flatten()[:: max(1, parameter.numel() // 4096)].double().cpu()
        digest.update(f"{name}{tuple(parameter.shape)}{sums}".encode() + some.numpy().tobytes())
    return digest.hexdigest()[:16]
