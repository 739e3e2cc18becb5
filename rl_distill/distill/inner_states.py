"""What the student may learn from inside the teacher: hidden states, attention maps and embeddings of mapped layers.

Assumes decoders of transformers with `layers` whose modules return hidden states, right-padded inputs without a mask,
and both models in this process. It holds only the mapped layers, and never takes part in generation.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

LayerMap = Mapping[int, int]
"""student layer -> teacher layer, both counted from 0"""


def layer_map(spec: str | Mapping[Any, Any], student_layers: int, teacher_layers: int) -> dict[int, int]:
    """The map that `spec` names, in the order of the student's layers.

    "uniform": layer i is matched with the teacher's at the same relative depth, last with last. "last": only the last
    layers. A mapping such as {6: 9} is taken as it is. Raises ValueError where a layer does not exist.
    """
    if spec == "last":
        return {student_layers - 1: teacher_layers - 1}
    if spec == "uniform":
        return {i: round((i + 1) * teacher_layers / student_layers) - 1 for i in range(student_layers)}
    if isinstance(spec, str):
        raise ValueError(f"a layer map is uniform, last, or a mapping such as {{6: 9}}, not {spec!r}")
    pairs = {int(student): int(teacher) for student, teacher in spec.items()}
    for student, teacher in pairs.items():
        if not (0 <= student < student_layers and 0 <= teacher < teacher_layers):
            raise ValueError(
                f"layer map {{{student}: {teacher}}}: the student has layers 0 to {student_layers - 1}, the "
                f"teacher 0 to {teacher_layers - 1}"
            )
    return dict(sorted(pairs.items()))


class LayerRecorder(AbstractContextManager["LayerRecorder"]):
    """Inside the context each forward pass leaves the outputs of `hidden_layers` and, for `attention_layers`, what the
    attention module was called with. One forward pass per context.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        hidden_layers: Iterable[int],
        attention_layers: Iterable[int],
        *,
        embeddings: bool = False,
    ) -> None:
        self.embeddings = embeddings
        self.decoder: Any = model.get_decoder()
        self.hidden_layers, self.attention_layers = set(hidden_layers), set(attention_layers)
        self.hidden_BLD: dict[int, Tensor] = {}
        self.attention_inputs: dict[int, dict[str, Any]] = {}
        self.embeddings_BLD: Tensor | None = None
        self._hooks = ExitStack()

    def __enter__(self) -> LayerRecorder:
        for number in self.hidden_layers:
            self._keep(self.decoder.layers[number].register_forward_hook(self._on_hidden(number)))
        for number in self.attention_layers:
            hook = self._on_attention(number)
            self._keep(self.decoder.layers[number].self_attn.register_forward_pre_hook(hook, with_kwargs=True))
        if self.embeddings:
            self._keep(self.decoder.get_input_embeddings().register_forward_hook(self._on_embeddings))
        return self

    def __exit__(self, *exception: object) -> None:
        self._hooks.close()

    def _keep(self, handle: Any) -> None:
        self._hooks.callback(handle.remove)

    def _on_hidden(self, number: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self.hidden_BLD[number] = output[0] if isinstance(output, tuple) else output

        return hook

    def _on_attention(self, number: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            names = ("hidden_states", "position_embeddings")
            self.attention_inputs[number] = {**dict(zip(names, args)), **{n: kwargs[n] for n in names if n in kwargs}}

        return hook

    def _on_embeddings(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.embeddings_BLD = output

    def attention_maps_BHLL(self, number: int) -> Tensor:
        """Attention probabilities of a recorded layer, (B, heads, queries, keys), with their gradient.

        The layer's attention is computed once more by the eager implementation, for this layer alone: kernels such as
        SDPA and flash return no maps, and the model keeps them for everything else.
        """
        attention = self.decoder.layers[number].self_attn
        inputs = self.attention_inputs[number]
        states = inputs["hidden_states"]
        length = states.shape[1]
        future = torch.ones(length, length, dtype=torch.bool, device=states.device).triu(1)
        window = window_of(attention.config, number)
        if window is not None:
            future |= torch.ones_like(future).tril(-window)
        mask = torch.zeros(1, 1, length, length, dtype=states.dtype, device=states.device)
        mask.masked_fill_(future, torch.finfo(states.dtype).min)
        usual, eager = attention.config, copy.copy(attention.config)
        eager._attn_implementation = "eager"
        attention.config = eager
        try:
            return attention(**inputs, attention_mask=mask)[1]
        finally:
            attention.config = usual


def window_of(config: PreTrainedConfig, number: int) -> int | None:
    """How many keys, its own included, a query of this layer sees; None where it sees all before it."""
    layer_types = getattr(config, "layer_types", None)
    if layer_types is not None and layer_types[number] != "sliding_attention":
        return None
    return getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None


def hidden_distance(student_ND: Tensor, teacher_NE: Tensor, projection: nn.Module | None, kind: str) -> Tensor:
    """Per token: `mse`, the mean square over the width, or `cosine`, 1 - cos. `projection` maps D to E."""
    student_NE = (student_ND if projection is None else projection(student_ND)).float()
    teacher_NE = teacher_NE.float()
    if kind == "cosine":
        return 1 - torch.nn.functional.cosine_similarity(student_NE, teacher_NE, dim=-1)
    assert kind == "mse", kind
    return (student_NE - teacher_NE).square().mean(dim=-1)


def attention_divergence(student_BHLL: Tensor, teacher_BGLL: Tensor) -> Tensor:
    """KL(teacher || student) of the attention rows, (B, L): one per query, the mean over heads.

    Where the numbers of heads differ, the larger side's heads are averaged in groups, as grouped-query attention shares
    keys; if neither divides the other, both sides are averaged over all heads. The KL of a row does not shrink with the
    number of keys, as the mean square of the maps does.
    """
    student, teacher = _matched_heads(student_BHLL.float(), teacher_BGLL.float())
    tiny = torch.finfo(student.dtype).tiny
    terms = torch.where(teacher > 0, teacher * (teacher.clamp(min=tiny).log() - student.clamp(min=tiny).log()), 0.0)
    return terms.sum(dim=-1).mean(dim=1)


def _matched_heads(student_BHLL: Tensor, teacher_BGLL: Tensor) -> tuple[Tensor, Tensor]:
    heads, theirs = student_BHLL.shape[1], teacher_BGLL.shape[1]
    common = min(heads, theirs) if max(heads, theirs) % min(heads, theirs) == 0 else 1
    return _grouped(student_BHLL, common), _grouped(teacher_BGLL, common)


def _grouped(maps_BHLL: Tensor, num_groups: int) -> Tensor:
    return maps_BHLL.unflatten(1, (num_groups, -1)).mean(dim=2)


def make_projections(pairs: LayerMap, student_width: int, teacher_width: int) -> nn.ModuleDict:
    """A linear map per mapped layer where the widths differ, else none: trained beside the student, never exported."""
    if student_width == teacher_width:
        return nn.ModuleDict()
    return nn.ModuleDict({str(layer): nn.Linear(student_width, teacher_width, bias=False) for layer in pairs})
