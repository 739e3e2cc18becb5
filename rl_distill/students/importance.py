"""How much layers, heads, channels and residual channels do on given tokens, from one pass over them with hooks.

Assumes an architecture of `families`. It decides nothing: `selection` and `depth` choose by these numbers.

Shapes: N scored tokens, L layers, G key/value groups, F channels of the feed-forward part, D residual channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .calibration import TokenBatch
from .families import layers_of
from .surgery import Dimensions


@dataclass(frozen=True)
class Importance:
    """Means over scored tokens, in float64. Depth 0 is the input of the first layer, depth L the output of the last."""

    cosine_SS: Tensor
    """(L + 1, L + 1): cosine between the residual stream at two depths"""
    angle_SS: Tensor
    """(L + 1, L + 1): the same as an angle, arccos / pi, averaged as angles"""
    update_L: Tensor
    """length of what a layer adds over the length of what it reads"""
    heads_LG: Tensor
    """root mean square of the attention output of each key/value group, before the output projection"""
    channels_LF: Tensor
    """root mean square of each feed-forward channel, before the down projection"""
    hidden_D: Tensor
    """root mean square of each residual channel behind the norms, over all norms"""

    @property
    def block_influence_L(self) -> Tensor:
        """1 - cosine between what a layer reads and what it writes (ShortGPT, arXiv 2403.03853)."""
        return 1 - self.cosine_SS.diagonal(1)


class _Sums:
    """Running sums, filled by the hooks; `scored_N` selects the tokens of the batch under way."""

    def __init__(self, size: Dimensions) -> None:
        states = size.num_layers + 1
        self.cosine_SS = torch.zeros(states, states, dtype=torch.float64)
        self.angle_SS = torch.zeros(states, states, dtype=torch.float64)
        self.update_L = torch.zeros(size.num_layers, dtype=torch.float64)
        self.heads = [torch.zeros(size.num_heads * size.head_dim, dtype=torch.float64) for _ in range(size.num_layers)]
        self.channels = [torch.zeros(size.num_channels, dtype=torch.float64) for _ in range(size.num_layers)]
        self.hidden_D = torch.zeros(size.hidden_size, dtype=torch.float64)
        self.scored_N = torch.zeros(0, dtype=torch.bool)
        self.states: list[Tensor] = []
        self.num_tokens = 0

    def select(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.flatten(0, 1)[self.scored_N].float()

    def add_states(self) -> None:
        """Closes a batch: the residual stream at all depths, compared token by token."""
        states_SND = torch.stack(self.states)
        unit_NSD = torch.nn.functional.normalize(states_SND, dim=-1).transpose(0, 1)
        cosine_NSS = (unit_NSD @ unit_NSD.mT).clamp(-1, 1)
        self.cosine_SS += cosine_NSS.double().sum(0).cpu()
        self.angle_SS += (cosine_NSS.double().arccos() / math.pi).sum(0).cpu()
        lengths = states_SND.diff(dim=0).norm(dim=-1) / states_SND[:-1].norm(dim=-1)
        self.update_L += lengths.double().sum(1).cpu()
        self.num_tokens += states_SND.shape[1]
        self.states = []


@torch.no_grad()
def measure(model: PreTrainedModel, batches: Sequence[TokenBatch]) -> Importance:
    """The model's Importance on the scored tokens of the batches."""
    size = Dimensions.of(model.config)
    sums = _Sums(size)
    with _hooks(model, sums):
        for batch in batches:
            sums.scored_N = batch.scored_BT.flatten().to(model.device)
            model.base_model(input_ids=batch.ids_BT.to(model.device), use_cache=False)
            sums.add_states()
    n = sums.num_tokens
    heads_LG = torch.stack(sums.heads).view(size.num_layers, size.num_groups, -1)
    return Importance(
        cosine_SS=sums.cosine_SS / n,
        angle_SS=sums.angle_SS / n,
        update_L=sums.update_L / n,
        heads_LG=(heads_LG.mean(-1) / n).sqrt(),
        channels_LF=(torch.stack(sums.channels) / n).sqrt(),
        hidden_D=(sums.hidden_D / (n * (2 * size.num_layers + 1))).sqrt(),
    )


@contextmanager
def _hooks(model: PreTrainedModel, sums: _Sums) -> Iterator[None]:
    def squares_of_input(total: Tensor) -> Callable[..., None]:
        def hook(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
            total.add_(sums.select(inputs[0]).square().sum(0).double().cpu())

        return hook

    def squares_of_output(_: torch.nn.Module, __: Any, output: Tensor) -> None:
        sums.hidden_D += sums.select(output).square().sum(0).double().cpu()

    def keep_input(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sums.states.append(sums.select(inputs[0]))

    layers = layers_of(model)
    final_norm: Any = model.base_model.norm
    handles = [final_norm.register_forward_pre_hook(keep_input), final_norm.register_forward_hook(squares_of_output)]
    for layer, heads, channels in zip(layers, sums.heads, sums.channels, strict=True):
        handles += [
            layer.register_forward_pre_hook(keep_input),
            layer.self_attn.o_proj.register_forward_pre_hook(squares_of_input(heads)),
            layer.mlp.down_proj.register_forward_pre_hook(squares_of_input(channels)),
            layer.input_layernorm.register_forward_hook(squares_of_output),
            layer.post_attention_layernorm.register_forward_hook(squares_of_output),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
