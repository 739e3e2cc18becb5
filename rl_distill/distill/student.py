"""The student of a distillation stage: a causal LM with the projections its inner losses need, in one engine.

One pass of the trunk; cross entropy and divergence are read off the states of real completion tokens in chunks, so
batch x length x vocabulary never exists. The export is the causal LM alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..maths.batching import TokenBatch
from ..maths.distillation import Divergence, distillation_statistics, sampled_forward_kl, top_k_divergence
from ..maths.lm_head import HeadWeights
from ..maths.logprobs import token_statistics
from ..models.actor_critic import tied_weights_of
from ..models.dropout import remove_dropout
from .inner_states import LayerRecorder, attention_divergence, hidden_distance, make_projections


@dataclass(frozen=True)
class InnerStates:
    """What one forward pass left of the mapped layers; hidden states per real token, attention per row and query."""

    hidden_NE: dict[int, Tensor] = field(default_factory=dict)
    attention_BHLL: dict[int, Tensor] = field(default_factory=dict)
    embeddings_NE: Tensor | None = None


@dataclass(frozen=True)
class SoftTargets:
    """The teacher's distribution at every real token: whole (hidden states and head), the likeliest ids with their
    log-probabilities, or ids drawn from it together with its entropy; none of them for the cross entropy alone."""

    hidden_NE: Tensor | None = None
    head_VE: HeadWeights | None = None
    top_ids_NK: Tensor | None = None
    top_logprobs_NK: Tensor | None = None
    sampled_ids_NS: Tensor | None = None
    entropy_N: Tensor | None = None
    inner: InnerStates = field(default_factory=InnerStates)


class GradientPoints(NamedTuple):
    """States that terms of the loss share with the cross entropy: the final ones of the targets, and by student layer
    those that its inner loss compares."""

    final_ND: Tensor
    hidden_BLD: dict[int, Tensor]
    attention_BLD: dict[int, Tensor]


class DistillationOutput(NamedTuple):
    """Per real completion token; the inner losses by mapped layer, in the order of the maps. None: not asked for."""

    cross_entropy_N: Tensor
    divergence_N: Tensor | None
    hidden_LN: Tensor | None
    attention_LN: Tensor | None
    embedding_N: Tensor | None
    points: GradientPoints | None = None


class DistillationStudent(PreTrainedModel):
    """`policy` is any causal LM of transformers (or a peft wrapper); the maps go from student to teacher layers."""

    base_model_prefix = "policy"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(
        self,
        policy: PreTrainedModel,
        *,
        hidden_map: dict[int, int] | None = None,
        attention_map: dict[int, int] | None = None,
        hidden_loss: str = "mse",
        embeddings: bool = False,
        teacher_width: int = 0,
        num_tokens_vocab: int | None = None,
    ) -> None:
        super().__init__(policy.config)
        self.policy = policy
        remove_dropout(policy)  # sampling and evaluation have none, and it would punch holes into attention maps
        self.hidden_map, self.attention_map = hidden_map or {}, attention_map or {}
        self.hidden_loss, self.embeddings, self.num_tokens_vocab = hidden_loss, embeddings, num_tokens_vocab
        width = policy.config.get_text_config().hidden_size
        self.projections = make_projections(self.hidden_map, width, teacher_width)
        self.embedding_projection = make_projections({0: 0} if embeddings else {}, width, teacher_width)
        self._tied_weights_keys = tied_weights_of(policy)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the policy arrives initialised, and projections initialise themselves."""

    def get_input_embeddings(self) -> Any:
        """None, so that under FSDP the embedding is gathered with the model (see ActorCritic)."""
        return None

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        self.policy.gradient_checkpointing_enable(*args, **kwargs)

    def gradient_checkpointing_disable(self) -> None:
        self.policy.gradient_checkpointing_disable()

    def forward(
        self,
        batch: TokenBatch,
        targets: SoftTargets,
        divergence: Divergence,
        *,
        temperature: float = 1.0,
        interpolation: float = 1.0,
        keep_points: bool = False,
    ) -> DistillationOutput:
        """DistillationOutput of the batch's targets, in their order. `targets` are about the same tokens.

        `keep_points` adds the states at which gradients can be compared.
        """
        with LayerRecorder(self.policy, self.hidden_map, self.attention_map, embeddings=self.embeddings) as recorder:
            trunk = self.policy.get_decoder()
            hidden_BLD = trunk(input_ids=batch.input_ids_BL, use_cache=False).last_hidden_state
        head = self.policy.get_output_embeddings()
        hidden_ND = at_tokens(hidden_BLD, batch.state_index_N)
        stats = distillation_statistics(
            hidden_ND,
            head.weight,
            batch.targets_N,
            divergence,
            bias_V=head.bias,
            teacher_hidden_NE=targets.hidden_NE,
            teacher_weight_VE=targets.head_VE,
            temperature=temperature,
            interpolation=interpolation,
            num_tokens_vocab=self.num_tokens_vocab,
        )
        divergence_N = stats.divergence_N
        if divergence_N is None:
            divergence_N = self._sparse_divergence(hidden_ND, head, targets, divergence, temperature)
        inner = self._inner_losses(recorder, batch, targets.inner)
        points = None
        if keep_points:
            read = {layer: inputs["hidden_states"] for layer, inputs in recorder.attention_inputs.items()}
            attention_BLD = {layer: read[layer] for layer in self.attention_map}
            points = GradientPoints(hidden_ND, {n: recorder.hidden_BLD[n] for n in self.hidden_map}, attention_BLD)
        return DistillationOutput(stats.cross_entropy_N, divergence_N, *inner, points)

    def _sparse_divergence(
        self, hidden_ND: Tensor, head: Any, targets: SoftTargets, divergence: Divergence, temperature: float
    ) -> Tensor | None:
        ids = targets.top_ids_NK if targets.top_ids_NK is not None else targets.sampled_ids_NS
        if ids is None:
            return None
        stats = token_statistics(
            hidden_ND, head.weight, ids, bias=head.bias, temperature=temperature, num_tokens_vocab=self.num_tokens_vocab
        )
        if targets.top_logprobs_NK is not None:
            if ids.shape[1] >= min(len(head.weight), self.num_tokens_vocab or len(head.weight)):
                return divergence(stats.logprobs_N, targets.top_logprobs_NK)  # the whole vocabulary: no rest
            return top_k_divergence(divergence, stats.logprobs_N, targets.top_logprobs_NK)
        assert targets.entropy_N is not None
        return sampled_forward_kl(stats.logprobs_N, targets.entropy_N)

    def _inner_losses(
        self, recorder: LayerRecorder, batch: TokenBatch, teacher: InnerStates
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        index = batch.state_index_N
        hidden = [
            hidden_distance(
                at_tokens(recorder.hidden_BLD[ours], index),
                teacher.hidden_NE[theirs],
                self.projections[str(ours)] if len(self.projections) else None,
                self.hidden_loss,
            )
            for ours, theirs in self.hidden_map.items()
        ]
        attention = [
            attention_divergence(recorder.attention_maps_BHLL(ours), teacher.attention_BHLL[theirs]).flatten()[index]
            for ours, theirs in self.attention_map.items()
        ]
        embedding_N = None
        if self.embeddings and recorder.embeddings_BLD is not None and teacher.embeddings_NE is not None:
            projection = self.embedding_projection["0"] if len(self.embedding_projection) else None
            embedding_N = hidden_distance(
                at_tokens(recorder.embeddings_BLD, index), teacher.embeddings_NE, projection, "mse"
            )
        return _stack(hidden), _stack(attention), embedding_N


def at_tokens(states_BLD: Tensor, index_N: Tensor) -> Tensor:
    """The states at flattened (B*L) positions."""
    return states_BLD.reshape(-1, states_BLD.shape[-1])[index_N]


def _stack(parts: list[Tensor]) -> Tensor | None:
    return torch.stack(parts) if parts else None


@torch.no_grad()
def teacher_inner_states(
    model: PreTrainedModel, batch: TokenBatch, hidden_layers: set[int], attention_layers: set[int]
) -> tuple[Tensor, InnerStates]:
    """(final hidden states of the real tokens, inner states of the wanted layers) of a teacher in this process."""
    with LayerRecorder(model, hidden_layers, attention_layers, embeddings=True) as recorder:
        hidden_BLE = model.get_decoder()(input_ids=batch.input_ids_BL, use_cache=False).last_hidden_state
    index = batch.state_index_N
    inner = InnerStates(
        {layer: at_tokens(states, index) for layer, states in recorder.hidden_BLD.items()},
        {layer: recorder.attention_maps_BHLL(layer) for layer in attention_layers},
        None if recorder.embeddings_BLD is None else at_tokens(recorder.embeddings_BLD, index),
    )
    return at_tokens(hidden_BLE, index), inner
