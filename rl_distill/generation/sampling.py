"""Sampling completions with a KV cache; finished rows leave the batch, so short answers do not wait for long ones.

Draws come from one uniform number per row and token, fixed by (seed, row) before generation starts. So a completion
does not depend on the batch it was sampled in, on the number of processes or on torch's global random state.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..models.tokenizers import num_token_ids
from ..progress import progress_bar
from ..types import Finish
from .decoding import Decoder, make_decoder
from .policy_copy import PolicyCopy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SMALL_WEIGHTS = 10_000_000
"""Below so many parameters a decoding step on CPU is many tiny products, and handing them to threads costs more."""
SEARCH_BLOCK = 512
"""Probabilities per block where sampling looks for a token in two steps: vocabularies of more than two blocks."""


@dataclass(frozen=True)
class Sampling:
    """`temperature` 0 is greedy. `top_p` keeps the smallest set of tokens with at least that probability mass."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    is_approximate: bool = False
    """The model that samples is not quite the policy (a copy in bf16), so its log-probabilities matter."""

    @property
    def gives_logprobs(self) -> bool:
        """Whether tokens are drawn from another distribution than the policy's."""
        return self.temperature > 0 and (self.top_p < 1 or self.is_approximate)


@dataclass(frozen=True)
class Generated:
    """Token ids of one completion, EOS included where it was emitted, and why it ended.

    `logprobs`: of each token under the distribution it was drawn from, where that is not the policy's: another engine,
    a copy in bf16, or `top_p` below 1. Else None.
    """

    token_ids: list[int]
    finish: Finish
    logprobs: list[float] | None = None


OnBatch = Callable[[Sequence[int], Sequence["Generated"]], None]
"""Told the row numbers and the completions of each batch as soon as it is done."""


class GenerationEngine(Protocol):
    """What samples rollouts: this file's own loop, or vLLM (rl_distill/generation/vllm.py)."""

    def generate(
        self,
        policy: Any,
        prompt_ids: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        on_batch: OnBatch | None = None,
    ) -> list[Generated]: ...


class StopStrings:
    """Texts at which a completion ends, as at an EOS; the token that completes the text is the last one kept."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> None:
        self.tokenizer, self.texts = tokenizer, tuple(texts)
        self.window = max(len(text.encode()) for text in self.texts)
        """A token is at least one byte: a text just completed lies within the last so many tokens."""

    def found_in(self, rows: Sequence[Sequence[int]]) -> list[bool]:
        """Whether each row of token ids has just completed one of the texts."""
        tails = [list(row[-self.window :]) for row in rows]
        decoded = self.tokenizer.batch_decode(tails, skip_special_tokens=True)
        return [any(text in tail for text in self.texts) for tail in decoded]

    def ended(self, generated: Generated) -> Generated:
        """The completion up to where it first completed one of the texts: what sampling with them would have given."""
        ids = generated.token_ids
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        if not any(stop in text for stop in self.texts):
            return generated
        found = self.found_in([ids[: length + 1] for length in range(len(ids))])
        if True not in found:
            return generated
        length = found.index(True) + 1
        return Generated(ids[:length], Finish.STOP, generated.logprobs and generated.logprobs[:length])

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> StopStrings | None:
        """None where there are no texts."""
        return cls(tokenizer, texts) if texts else None


class TransformersEngine:
    """The policy itself, through `generate` below, or its copy in bf16 (`is_copy`), brought up to date each time."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        stop: StopStrings | None = None,
        *,
        is_copy: bool = False,
    ) -> None:
        self.tokenizer, self.batch_size, self.stop = tokenizer, batch_size, stop
        self.vocab_size = num_token_ids(tokenizer)
        self.copy = PolicyCopy(torch.bfloat16) if is_copy else None

    def generate(
        self,
        policy: Any,
        prompt_ids: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        on_batch: OnBatch | None = None,
    ) -> list[Generated]:
        if self.copy is not None:
            policy, sampling = self.copy.of(policy), replace(sampling, is_approximate=True)
        return generate(
            policy,
            prompt_ids,
            sampling,
            eos_token_ids=[self.tokenizer.eos_token_id],
            pad_token_id=self.tokenizer.pad_token_id,
            seeds=seeds,
            batch_size=self.batch_size,
            vocab_size=self.vocab_size,
            stop=self.stop,
            on_batch=on_batch,
        )


def added_text(tokenizer: Any, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> str:
    """What the tokens add to the prompt's text.

    Decoded with the prompt: tokenizers of SentencePiece's kind drop a first space, which in code is an indentation.
    """
    before = tokenizer.decode(prompt_ids, skip_special_tokens=True)
    whole = tokenizer.decode([*prompt_ids, *token_ids], skip_special_tokens=True)
    if whole.startswith(before):
        return whole[len(before) :]
    return tokenizer.decode(token_ids, skip_special_tokens=True)  # the prompt ends within a character


def ending_ids(model: Any, eos_token_ids: Sequence[int]) -> list[int]:
    """The given ids and those of the model's generation_config: chat models have several (end of turn, end of text)."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    own_ids = [] if own is None else [own] if isinstance(own, int) else list(own)
    return sorted({*eos_token_ids, *own_ids})


def row_uniforms(seeds: Sequence[int], num_tokens: int) -> Tensor:
    """(rows, num_tokens) numbers in [0, 1); row i depends on seeds[i] alone."""
    generator = torch.Generator()
    rows = []
    for seed in seeds:
        generator.manual_seed(seed)
        rows.append(torch.rand(num_tokens, generator=generator))
    return torch.stack(rows) if rows else torch.empty(0, num_tokens)


def _keep_top_p(probs_BV: Tensor, top_p: float) -> Tensor:
    sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True)
    outside_BV = sorted_BV.cumsum(-1) - sorted_BV >= top_p
    return probs_BV.masked_fill(outside_BV.scatter(-1, order_BV, outside_BV), 0.0)


def choose(logits_BV: Tensor, sampling: Sampling, uniforms_B: Tensor) -> tuple[Tensor, Tensor | None]:
    """(the next token of each row, its log-probability where `sampling.gives_logprobs`): the argmax at temperature 0,
    else the inverse of the distribution function at u.
    """
    if sampling.temperature == 0:
        return logits_BV.argmax(-1), None
    scaled_BV = logits_BV.float() if sampling.temperature == 1 else logits_BV.float() / sampling.temperature
    probs_BV = torch.softmax(scaled_BV, dim=-1)
    if not sampling.gives_logprobs:
        return _draw(probs_BV, uniforms_B), None
    kept_BV = _keep_top_p(probs_BV, sampling.top_p) if sampling.top_p < 1 else probs_BV
    tokens_B = _draw(kept_BV, uniforms_B)
    return tokens_B, (kept_BV.gather(1, tokens_B[:, None])[:, 0] / kept_BV.sum(-1)).log()


def _draw(probs_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """The inverse of each row's distribution function; rows need not sum to 1."""
    if probs_BV.shape[-1] > 2 * SEARCH_BLOCK:
        return _search_by_blocks(probs_BV, uniforms_B)
    cumulative_BV = probs_BV.cumsum(-1)
    target_B1 = (uniforms_B * cumulative_BV[:, -1]).unsqueeze(-1)
    tokens_B = torch.searchsorted(cumulative_BV, target_B1, right=True).squeeze(-1)
    return tokens_B.clamp_max(probs_BV.shape[-1] - 1)


def _search_by_blocks(probs_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """The inverse of the distribution function, found among sums of blocks and then inside one block: running sums over
    a whole large vocabulary are the slowest part of sampling on a CPU.
    """
    num_vocab = probs_BV.shape[-1]
    whole = num_vocab - num_vocab % SEARCH_BLOCK
    sums_BK = probs_BV[:, :whole].unflatten(1, (-1, SEARCH_BLOCK)).sum(-1)
    ends_BK = torch.cat([sums_BK, probs_BV[:, whole:].sum(-1, keepdim=True)], dim=-1).cumsum(-1)
    target_B1 = _below(uniforms_B[:, None] * ends_BK[:, -1:], ends_BK[:, -1:])
    block_B1 = torch.searchsorted(ends_BK, target_B1, right=True)
    begin_B1 = torch.where(block_B1 > 0, ends_BK.gather(1, (block_B1 - 1).clamp_min(0)), 0.0)
    columns_BW = block_B1 * SEARCH_BLOCK + torch.arange(SEARCH_BLOCK, device=probs_BV.device)
    inside_BW = probs_BV.gather(1, columns_BW.clamp_max(num_vocab - 1))
    inside_BW = inside_BW.masked_fill(columns_BW >= num_vocab, 0.0).cumsum(-1)
    place_B1 = torch.searchsorted(inside_BW, _below(target_B1 - begin_B1, inside_BW[:, -1:]), right=True)
    return (block_B1 * SEARCH_BLOCK + place_B1).squeeze(-1)


def _below(x: Tensor, limit: Tensor) -> Tensor:
    """`x`, or the number before the limit: so a search to its right always ends at something of positive size."""
    return torch.minimum(x, torch.nextafter(limit, torch.zeros_like(limit)))


@contextlib.contextmanager
def decoding_threads(model: PreTrainedModel) -> Iterator[None]:
    """One torch thread while a small model decodes on CPU; with two, its steps take twice as long."""
    num_threads = torch.get_num_threads()
    small = sum(p.numel() for p in model.parameters()) < SMALL_WEIGHTS and model.device.type == "cpu"
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    eos_token_ids: Sequence[int],
    pad_token_id: int,
    seeds: Sequence[int] | None = None,
    batch_size: int = 64,
    vocab_size: int | None = None,
    stop: StopStrings | None = None,
    on_batch: OnBatch | None = None,
    decoder_of: Callable[[PreTrainedModel, int], Decoder] = make_decoder,
) -> list[Generated]:
    """One completion per prompt, in order. Prompts of similar length share a batch, so little padding is computed.

    A completion ends at any of `eos_token_ids`, at those of the model's own generation_config, or at a stop string.
    `vocab_size` hides padding rows of the language-model head (ids the tokenizer does not have) from sampling.
    `decoder_of` makes the decoder of a batch from the model and the number of new tokens.
    Raises ValueError on an empty prompt.
    """
    if any(len(ids) == 0 for ids in prompt_ids):
        raise ValueError("an empty prompt cannot be continued: give the model at least one token")
    device = next(model.parameters()).device
    if seeds is None:
        seeds = range(len(prompt_ids))
    uniforms = row_uniforms(seeds, sampling.max_new_tokens).to(device) if sampling.temperature > 0 else None
    order = sorted(range(len(prompt_ids)), key=lambda i: (len(prompt_ids[i]), i))
    results: list[Generated | None] = [None] * len(prompt_ids)
    for rows in progress_bar([order[i : i + batch_size] for i in range(0, len(order), batch_size)], "generating"):
        with decoding_threads(model):
            tokens = _generate_batch(
                model,
                [prompt_ids[i] for i in rows],
                sampling,
                eos=torch.tensor(ending_ids(model, eos_token_ids), device=device),
                pad_token_id=pad_token_id,
                uniforms_BT=None if uniforms is None else uniforms[torch.tensor(rows, device=device)],
                vocab_size=vocab_size,
                stop=stop,
                decoder_of=decoder_of,
            )
        for row, generated in zip(rows, tokens, strict=True):
            results[row] = generated
        if on_batch is not None:
            on_batch(rows, tokens)
    return [result for result in results if result is not None]


def _left_pad(prompt_ids: Sequence[Sequence[int]], pad_token_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    length = max(len(ids) for ids in prompt_ids)
    input_ids = torch.full((len(prompt_ids), length), pad_token_id, dtype=torch.long)
    mask = torch.zeros((len(prompt_ids), length), dtype=torch.long)
    for row, ids in enumerate(prompt_ids):
        input_ids[row, length - len(ids) :] = torch.tensor(ids, dtype=torch.long)
        mask[row, length - len(ids) :] = 1
    return input_ids.to(device), mask.to(device)


def _distinct(prompt_ids: Sequence[Sequence[int]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """(the prompts without repeats, the number of each row's among them): a group's prompt is read once."""
    places: dict[tuple[int, ...], int] = {}
    of_rows = [places.setdefault(tuple(ids), len(places)) for ids in prompt_ids]
    return list(places), of_rows


def _generate_batch(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    eos: Tensor,
    pad_token_id: int,
    uniforms_BT: Tensor | None,
    vocab_size: int | None,
    stop: StopStrings | None,
    decoder_of: Callable[[PreTrainedModel, int], Decoder],
) -> list[Generated]:
    """Why the batch shrinks: lengths differ by a factor of ten, and a finished row would cost as much as a living one
    to the end. `alive` maps the rows that still decode to those of the whole batch; the cache drops the others with
    them. Example: B = 4, row 1 ends at t = 2: alive [0, 2, 3], and logits_BV is (3, V) from then on.
    """
    device = eos.device
    distinct, prompt_of_row = _distinct(prompt_ids)
    decoder = decoder_of(model, sampling.max_new_tokens)
    alive = torch.arange(len(prompt_ids), device=device)
    tokens_BT = torch.full((len(prompt_ids), sampling.max_new_tokens), pad_token_id, dtype=torch.long, device=device)
    lengths_B = torch.full((len(prompt_ids),), sampling.max_new_tokens, dtype=torch.long, device=device)
    stopped_B = torch.zeros(len(prompt_ids), dtype=torch.bool, device=device)
    logprobs_BT = torch.zeros_like(tokens_BT, dtype=torch.float32) if sampling.gives_logprobs else None
    spread = torch.tensor(prompt_of_row, device=device) if len(distinct) < len(prompt_ids) else None
    logits_BV = decoder.prefill(*_left_pad(distinct, pad_token_id, device), spread)
    for t in range(sampling.max_new_tokens):
        uniforms_B = uniforms_BT[alive, t] if uniforms_BT is not None else logits_BV.new_empty(0)
        next_B, next_logprobs_B = choose(logits_BV[:, :vocab_size], sampling, uniforms_B)
        tokens_BT[alive, t] = next_B
        if logprobs_BT is not None and next_logprobs_B is not None:
            logprobs_BT[alive, t] = next_logprobs_B
        ended = torch.isin(next_B, eos)
        if stop is not None:
            ended |= torch.tensor(stop.found_in(tokens_BT[alive, : t + 1].tolist()), device=device)
        if ended.any():
            stopped_B[alive[ended]] = True
            lengths_B[alive[ended]] = t + 1
            keep = (~ended).nonzero().squeeze(-1)
            if keep.numel() == 0:
                break
            decoder.keep(keep)
            alive, next_B = alive[keep], next_B[keep]
        if t + 1 < sampling.max_new_tokens:
            logits_BV = decoder.step(next_B)
    return _completions(tokens_BT, lengths_B, stopped_B, logprobs_BT)


def _completions(
    tokens_BT: Tensor, lengths_B: Tensor, stopped_B: Tensor, logprobs_BT: Tensor | None
) -> list[Generated]:
    rows: list[list[int]] = tokens_BT.tolist()
    logprobs = [None] * len(rows) if logprobs_BT is None else logprobs_BT.tolist()
    return [
        Generated(row[:length], Finish.STOP if stop else Finish.LENGTH, None if values is None else values[:length])
        for row, length, stop, values in zip(rows, lengths_B.tolist(), stopped_B.tolist(), logprobs, strict=True)
    ]
