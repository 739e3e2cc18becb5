"""Policy and critic as one PreTrainedModel: one engine under DDP or DeepSpeed, one checkpoint.

One pass of the policy's trunk gives the hidden states; log-probabilities, entropy, exact KL and values are read off
the states of real completion tokens only. Nothing of size batch x length x vocabulary is ever held.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .. import distributed
from ..maths.lm_head import HeadWeights
from ..maths.logprobs import token_statistics
from .critics import (
    Critic,
    CriticInputs,
    SeparateCritic,
    SharedTrunkCritic,
    TeacherInformedCritic,
    flat_teacher_scalars,
    hidden_states,
)
from .dropout import remove_dropout
from .loading import text_config


class ActorCriticOutput(NamedTuple):
    """Row n is about one completion token: its log-probability etc., and the value of the state before it.

    A tuple, as ZeRO-3 gathers weights for the backward pass through hooks on the tensors that it finds in an output.
    """

    logprobs_N: Tensor
    entropy_N: Tensor
    kl_N: Tensor | None
    values_N: Tensor | None
    top_logprobs_NK: Tensor | None = None
    """The student's log-probabilities of the teacher's likeliest ids, where those were given."""
    teacher_logprobs_N: Tensor | None = None
    teacher_entropy_N: Tensor | None = None
    """The teacher's, where `completion_lengths` ask for them."""


class ActorCritic(PreTrainedModel):
    """`policy` (any causal LM of transformers, or a peft wrapper of one) and `critic` (None: policy only).

    Both train without dropout: what is there is set to 0, with one warning.
    """

    base_model_prefix = "policy"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, policy: PreTrainedModel, critic: Critic | None, num_tokens_vocab: int | None = None) -> None:
        super().__init__(policy.config)
        self.policy = policy
        self.critic = critic
        self.num_tokens_vocab = num_tokens_vocab
        dropped = remove_dropout(self)
        if dropped and distributed.is_main():
            warnings.warn(f"PPO trains without dropout: {', '.join(dropped)} is ignored", stacklevel=2)
        self._tied_weights_keys = tied_weights_of(policy)
        if hasattr(policy, "peft_config"):  # a checkpoint holds what is trained: adapters and critic
            self._tied_weights_keys = {}
            named = self.named_parameters(remove_duplicate=False)
            self._keys_to_ignore_on_save = [name for name, parameter in named if not parameter.requires_grad]
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: policy and critic arrive initialised."""

    def get_correct_experts_implementation(self, requested_experts: str | None) -> Any:
        """The one that the policy has chosen for its experts: transformers asks every model, and this has none."""
        return requested_experts

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Weights under the names that they have here, so that a checkpoint goes back into the model as it is: by
        default transformers writes those of published checkpoints, where experts are apart.
        """
        super().save_pretrained(save_directory, *args, **kwargs | {"save_original_format": False})

    def get_input_embeddings(self) -> Any:
        """None, so that under FSDP the embedding is gathered with the model and not by its own forward pass: it may be
        tied to the head, which has no forward pass here, as only its weight is read.
        """
        return None

    def gradient_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        if hasattr(self.policy, "peft_config"):  # checkpointed segments need an input that carries a gradient
            self.policy.enable_input_require_grads()
        self.policy.gradient_checkpointing_enable(*args, **kwargs)
        if isinstance(self.critic, SeparateCritic):
            self.critic.trunk.gradient_checkpointing_enable(*args, **kwargs)

    def gradient_checkpointing_disable(self) -> None:
        self.policy.gradient_checkpointing_disable()
        if isinstance(self.critic, SeparateCritic):
            self.critic.trunk.gradient_checkpointing_disable()

    def forward(
        self,
        input_ids_BL: Tensor,
        state_index_N: Tensor,
        targets_N: Tensor,
        *,
        temperature: float = 1.0,
        teacher_hidden_NE: Tensor | None = None,
        teacher_weight_VE: HeadWeights | None = None,
        teacher_scalars_NK: Tensor | None = None,
        teacher_top_ids_NK: Tensor | None = None,
        completion_lengths: Sequence[int] | None = None,
        position_ids_BL: Tensor | None = None,
        critic_only: bool = False,
    ) -> ActorCriticOutput:
        """ActorCriticOutput of `targets_N`, where state_index_N points into the flattened (B*L) positions that predict
        them. `input_ids_BL` is right-padded, so a causal model needs no mask and padding changes nothing; with
        `position_ids_BL` several rows share one (see maths/batching.py).
        With `teacher_weight_VE` the exact KL(student || teacher) comes along, and with the rows' `completion_lengths`
        too the teacher's log-probabilities and entropy, of which the critic's scalars are then made: its head was
        applied nowhere else. `critic_only` keeps the values' gradient out of the policy.
        """
        trunk = self.policy.get_decoder()
        hidden_BLD = hidden_states(trunk, input_ids_BL, position_ids_BL)
        hidden_ND = hidden_BLD.reshape(-1, hidden_BLD.shape[-1])[state_index_N]
        head = self.policy.get_output_embeddings()
        wanted = targets_N if teacher_top_ids_NK is None else torch.cat([targets_N[:, None], teacher_top_ids_NK], 1)
        stats = token_statistics(
            hidden_ND,
            head.weight,
            wanted,
            bias=head.bias,
            teacher_hidden_NE=None if teacher_weight_VE is None else teacher_hidden_NE,
            teacher_weight_VE=teacher_weight_VE,
            temperature=temperature,
            num_tokens_vocab=self.num_tokens_vocab,
        )
        teacher_N: tuple[Tensor | None, Tensor | None] = (None, None)
        if completion_lengths is not None:
            logprobs_N, entropy_N = teacher_N = stats.teacher_logprobs_N, stats.teacher_entropy_N
            assert logprobs_N is not None
            assert entropy_N is not None
            teacher_scalars_NK = flat_teacher_scalars(logprobs_N, entropy_N, completion_lengths)
        values_N = None
        if self.critic is not None:
            states_ND = hidden_ND.detach() if critic_only else hidden_ND
            inputs = CriticInputs(
                states_ND, input_ids_BL, state_index_N, teacher_hidden_NE, teacher_scalars_NK, position_ids_BL
            )
            values_N = self.critic(inputs)
        if teacher_top_ids_NK is None:
            return ActorCriticOutput(stats.logprobs_N, stats.entropy_N, stats.kl_N, values_N, None, *teacher_N)
        logprobs_N, top_NK = stats.logprobs_N[:, 0], stats.logprobs_N[:, 1:]
        return ActorCriticOutput(logprobs_N, stats.entropy_N, stats.kl_N, values_N, top_NK, *teacher_N)


def tied_weights_of(policy: PreTrainedModel) -> dict[str, str]:
    """The policy's tied weights under their names in a wrapper that calls it `policy`: saving stores each once."""
    keys = dict(getattr(policy, "all_tied_weights_keys", None) or {})
    return {f"policy.{tied}": f"policy.{source}" for tied, source in keys.items()}


def make_critic(kind: str, policy: PreTrainedModel, teacher_hidden_size: int) -> Critic:
    """The critic variant by its name in the config; its weights come from torch's random state."""
    hidden_size = text_config(policy).hidden_size
    if kind == "shared":
        return SharedTrunkCritic(hidden_size)
    if kind == "separate":
        return SeparateCritic(policy.get_decoder(), hidden_size)
    assert kind == "teacher_informed", kind
    return TeacherInformedCritic(hidden_size, teacher_hidden_size)


def parameter_groups(model: ActorCritic, learning_rate: float, value_learning_rate: float, weight_decay: float) -> list:
    """Optimizer groups: the policy with and without weight decay (none on biases and norms), and the critic."""
    policy = [(name, p) for name, p in model.policy.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for _, p in policy if p.ndim >= 2], "lr": learning_rate, "weight_decay": weight_decay},
        {"params": [p for _, p in policy if p.ndim < 2], "lr": learning_rate, "weight_decay": 0.0},
    ]
    groups = [group | {"part": "policy"} for group in groups]
    if model.critic is not None:
        critic = {"params": list(model.critic.parameters()), "lr": value_learning_rate, "weight_decay": 0.0}
        groups.append(critic | {"part": "critic"})
    return [group for group in groups if group["params"]]


def clip_gradients(model: ActorCritic, max_norm: float) -> dict[str, float]:
    """Clips the policy's and the critic's gradients to `max_norm` each, apart: a large KL gradient would starve the
    value head under a shared norm. Returns the norms before clipping.
    """
    parts = {"grad_norm": model.policy, "grad_norm_critic": model.critic}
    return {
        name: distributed.whole_number(nn.utils.clip_grad_norm_(part.parameters(), max_norm))
        for name, part in parts.items()
        if part is not None
    }


def freeze_other_towers(policy: PreTrainedModel) -> None:
    """No gradients for what reads images or sound: text alone never reaches it, and DDP waits for every gradient."""
    if policy.config.get_text_config() is policy.config or hasattr(policy, "peft_config"):
        return
    used = {id(p) for part in (policy.get_decoder(), policy.get_output_embeddings()) for p in part.parameters()}
    for parameter in policy.parameters():
        if id(parameter) not in used:
            parameter.requires_grad_(False)


def freeze(model: PreTrainedModel) -> PreTrainedModel:
    """The model in evaluation mode, without gradients."""
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model
