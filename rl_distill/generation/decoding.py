"""One decoding step of a model for the rows of a batch, with a cache that grows or, on a GPU, as a captured CUDA graph.

A small model's step is hundreds of short kernels, and launching them from Python takes longer than running them. A CUDA
graph launches all of them at once; it needs fixed addresses, hence a cache of fixed size.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, DynamicCache, PreTrainedConfig, PreTrainedModel, StaticCache
from transformers.cache_utils import StaticLayer

MIN_GRAPH_STEPS = 32
"""Capturing a graph takes about as long as a few plain steps: fewer decoding steps than this stay plain."""
GROUPED = "rl_distill_grouped"
COMPACT_BELOW = 0.25
"""Rows that have ended go on being computed in a graph until fewer than this share of its rows is alive."""


def grouped_attention(
    module: Any,
    query_BH1D: Tensor,
    key_BKLD: Tensor,
    value_BKLD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """(attention of one token per row as (B, 1, H, D), None), in transformers' form of an attention function.

    The H / K query heads that share a key head stand as H / K queries of that head: the same products as with keys and
    values repeated H / K times, without the copies.
    """
    num_rows, num_heads, _one, num_features = query_BH1D.shape
    grouped_BKGD = query_BH1D.reshape(num_rows, key_BKLD.shape[1], -1, num_features)
    read_BKGD = scaled_dot_product_attention(
        grouped_BKGD, key_BKLD, value_BKLD, attn_mask=attention_mask, scale=scaling
    )
    return read_BKGD.reshape(num_rows, 1, num_heads, -1), None


AttentionInterface.register(GROUPED, grouped_attention)


@contextlib.contextmanager
def attention_by_groups(model: PreTrainedModel) -> Iterator[None]:
    """Inside, SDPA of single tokens goes by groups; attention layers look their function up at each call."""
    configs = [getattr(module, "config", None) for module in model.modules()]
    by_id: dict[int, Any] = {id(config): config for config in configs if isinstance(config, PreTrainedConfig)}
    changed = [config for config in by_id.values() if config._attn_implementation == "sdpa"]
    for config in changed:
        config._attn_implementation_internal = GROUPED
    try:
        yield
    finally:
        for config in changed:
            config._attn_implementation_internal = "sdpa"


class Decoder(Protocol):
    """The state of a batch that is being decoded: its cache, masks and positions."""

    def prefill(self, input_ids_PT: Tensor, mask_PT: Tensor, prompt_of_row_B: Tensor | None) -> Tensor:
        """logits_BV after left-padded prompts; `prompt_of_row_B`: which prompt each row continues, None: its own."""
        ...

    def step(self, tokens_B: Tensor) -> Tensor:
        """logits_BV after one more token of each row."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Only these rows (places among those alive now) go on."""
        ...


class PlainDecoder:
    """A DynamicCache; rows that end leave it."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.cache = model, DynamicCache(config=model.config)

    def prefill(self, input_ids_PT: Tensor, mask_PT: Tensor, prompt_of_row_B: Tensor | None) -> Tensor:
        self.mask_BT, self.no_padding = mask_PT, bool(mask_PT.all())
        positions_PT = (mask_PT.cumsum(-1) - 1).clamp_min(0)
        logits_BV = self._forward(input_ids_PT, positions_PT)
        self.positions_B1 = positions_PT[:, -1:]
        if prompt_of_row_B is not None:  # one row of the cache for each completion
            self.keep(prompt_of_row_B)
            logits_BV = logits_BV[prompt_of_row_B]
        return logits_BV

    def step(self, tokens_B: Tensor) -> Tensor:
        self.mask_BT = torch.cat([self.mask_BT, self.mask_BT.new_ones(len(self.mask_BT), 1)], dim=-1)
        self.positions_B1 = self.positions_B1 + 1
        return self._forward(tokens_B[:, None], self.positions_B1)

    def keep(self, rows: Tensor) -> None:
        self.cache.reorder_cache(rows)  # type: ignore[arg-type]  # batch_select_indices knows no linear attention
        self.mask_BT, self.positions_B1 = self.mask_BT[rows], self.positions_B1[rows]

    def _forward(self, input_ids_BT: Tensor, positions_BT: Tensor) -> Tensor:
        output = self.model(
            input_ids=input_ids_BT,
            attention_mask=None if self.no_padding else self.mask_BT,
            position_ids=positions_BT,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]


class GraphedDecoder:
    """A StaticCache for prompts and `max_new_tokens`, and a step captured as a CUDA graph (`capture=False`: the same
    step without a graph, on any device).

    The prompts are read with a cache that grows. A slot is a row of the static cache; `slots_B` are those of the rows
    alive.
    """

    def __init__(self, model: PreTrainedModel, max_new_tokens: int, capture: bool = True) -> None:
        self.model, self.steps_left, self.capture = model, max_new_tokens - 1, capture
        self.graph: Any = None
        self.slots_B = torch.empty(0, dtype=torch.long)

    def prefill(self, input_ids_PT: Tensor, mask_PT: Tensor, prompt_of_row_B: Tensor | None) -> Tensor:
        plain = PlainDecoder(self.model)
        logits_BV = plain.prefill(input_ids_PT, mask_PT, prompt_of_row_B)
        length = input_ids_PT.shape[1] + self.steps_left
        layers: list[Any] = list(plain.cache.layers)
        pairs = [(layer.keys, layer.values) for layer in layers]
        self._lay_out(pairs, plain.mask_BT, plain.positions_B1, length)
        return logits_BV

    def step(self, tokens_B: Tensor) -> Tensor:
        if self.graph is None and self.capture:
            self._capture()
        self.tokens_S1[self.slots_B, 0] = tokens_B
        if self.graph is None:
            self._advance()
        else:
            self.graph.replay()
        self.steps_left -= 1
        return self.logits_SV[self.slots_B]

    def keep(self, rows: Tensor) -> None:
        self.slots_B = self.slots_B[rows]
        few = len(self.slots_B) < COMPACT_BELOW * len(self.tokens_S1)
        if few and self.steps_left >= MIN_GRAPH_STEPS:
            self._compact()

    def _lay_out(
        self, pairs: Sequence[tuple[Tensor, Tensor]], seen_ST: Tensor, positions_S1: Tensor, length: int
    ) -> None:
        """Writes keys and values of the tokens seen so far into a cache for `length` tokens. No graph belongs to it."""
        self.graph = None
        self.cache = StaticCache(config=self.model.config, max_cache_len=length)
        self.layers: list[Any] = list(self.cache.layers)
        for layer, (keys, values) in zip(self.layers, pairs, strict=True):
            layer.update(keys, values)
        rows, seen = seen_ST.shape
        device, dtype = seen_ST.device, self.model.dtype
        self.mask_S11L = torch.full((rows, 1, 1, length), torch.finfo(dtype).min, dtype=dtype, device=device)
        self.mask_S11L[:, 0, 0, :seen].masked_fill_(seen_ST.bool(), 0.0)
        self.column_1 = torch.tensor([seen], device=device)
        self.positions_S1 = positions_S1.clone()
        self.tokens_S1 = torch.zeros_like(positions_S1)
        self.visible_S111 = self.mask_S11L.new_zeros(rows, 1, 1, 1)
        self.slots_B = torch.arange(rows, device=device)

    def _advance(self) -> None:
        """One token further; every tensor that it reads or changes keeps its address."""
        self.positions_S1 += 1
        self.mask_S11L.index_copy_(3, self.column_1, self.visible_S111)
        with attention_by_groups(self.model):
            output = self.model(
                input_ids=self.tokens_S1,
                attention_mask=self.mask_S11L,
                position_ids=self.positions_S1,
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self.column_1 += 1
        self.logits_SV = output.logits[:, -1]

    def _capture(self) -> None:
        """Warm-up on a stream of its own as CUDA asks for, then the capture, which computes nothing."""
        seen, before_S1 = int(self.column_1), self.positions_S1.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._advance()
        torch.cuda.current_stream().wait_stream(side)
        self._rewind(seen, before_S1)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._advance()
        except RuntimeError as error:
            warnings.warn(
                f"decoding without a CUDA graph, as this model's step cannot be captured: {error}", stacklevel=2
            )
            self.capture = False
            torch.cuda.synchronize()
            self._rewind(seen, before_S1)
            return
        self.graph = graph

    def _rewind(self, seen: int, positions_S1: Tensor) -> None:
        """As before the step that follows `seen` tokens; what it wrote behind them stays hidden by the mask."""
        self.column_1.fill_(seen)
        self.positions_S1.copy_(positions_S1)
        self.mask_S11L[..., seen:] = torch.finfo(self.mask_S11L.dtype).min
        for layer in self.layers:
            layer.cumulative_length.fill_(seen)

    def _compact(self) -> None:
        """The rows alive in a cache of their own."""
        seen, slots_B = int(self.column_1), self.slots_B
        pairs = [(layer.keys[slots_B, :, :seen], layer.values[slots_B, :, :seen]) for layer in self.layers]
        seen_BT = (self.mask_S11L[slots_B, 0, 0, :seen] == 0).long()
        self._lay_out(pairs, seen_BT, self.positions_S1[slots_B], seen + self.steps_left)


def can_be_graphed(model: PreTrainedModel) -> bool:
    """Whether the step has fixed shapes and takes a mask made by hand: full attention by SDPA or eagerly, rotary
    frequencies that do not depend on the length.
    """
    config = model.config.get_text_config(decoder=True)
    if getattr(config, "_attn_implementation", None) not in ("sdpa", "eager"):
        return False
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if rope.get("rope_type", "default") in ("dynamic", "longrope"):
        return False
    try:
        layers = StaticCache(config=model.config, max_cache_len=1).layers
    except (ValueError, KeyError, AttributeError):  # a state without a static form
        return False
    return all(type(layer) is StaticLayer for layer in layers)


def make_decoder(model: PreTrainedModel, max_new_tokens: int, cuda_graph: bool = True) -> Decoder:
    on_cuda = model.device.type == "cuda"
    if cuda_graph and on_cuda and max_new_tokens > MIN_GRAPH_STEPS and can_be_graphed(model):
        return GraphedDecoder(model, max_new_tokens)
    return PlainDecoder(model)
