"""Critics behind one interface: each maps what is known just before a completion token to the value of that state.

A critic sees only the prompt and the tokens before t, so the baseline stays unbiased.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..maths.batching import completion_lengths_mask, to_padded

NUM_TEACHER_SCALARS = 4


@dataclass(frozen=True)
class CriticInputs:
    """Row n is the state before one completion token. `teacher_*` come from the forward that the anchor needs."""

    student_hidden_ND: Tensor
    input_ids_BL: Tensor
    state_index_N: Tensor
    teacher_hidden_NE: Tensor | None = None
    teacher_scalars_NK: Tensor | None = None
    position_ids_BL: Tensor | None = None


class Critic(nn.Module):
    """values_N = critic(CriticInputs). The last layer starts at zero: an untrained critic says 0."""

    def forward(self, inputs: CriticInputs) -> Tensor:
        raise NotImplementedError


def _zero_linear(num_inputs: int) -> nn.Linear:
    layer = nn.Linear(num_inputs, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _value(head: nn.Linear, hidden_ND: Tensor) -> Tensor:
    """values_N in float32, in which the head computes also under autocast (an engine may keep its weight in bf16)."""
    with torch.autocast(hidden_ND.device.type, enabled=False):
        return head(hidden_ND.to(head.weight.dtype)).squeeze(-1).to(at_least_float32(hidden_ND))


def hidden_states(trunk: Any, input_ids_BL: Tensor, position_ids_BL: Tensor | None = None) -> Tensor:
    """The trunk's last hidden states. Positions that begin anew within a row keep what is before them from being seen:
    transformers makes the mask (or the variable lengths of flash attention) of them.
    """
    packed = {} if position_ids_BL is None else {"position_ids": position_ids_BL}
    return trunk(input_ids=input_ids_BL, use_cache=False, **packed).last_hidden_state


def at_least_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


class SharedTrunkCritic(Critic):
    """A linear value head on the policy's own hidden state; its gradient reaches the trunk."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.head = _zero_linear(hidden_size)

    def forward(self, inputs: CriticInputs) -> Tensor:
        return _value(self.head, inputs.student_hidden_ND)


class SeparateCritic(Critic):
    """A separate trunk, initialised from the policy's, with a linear head. All weights train, in float32."""

    def __init__(self, trunk: nn.Module, hidden_size: int) -> None:
        super().__init__()
        self.trunk: Any = copy.deepcopy(trunk).float().requires_grad_(True)
        self.head = _zero_linear(hidden_size)

    def forward(self, inputs: CriticInputs) -> Tensor:
        hidden_BLD = hidden_states(self.trunk, inputs.input_ids_BL, inputs.position_ids_BL)
        return _value(self.head, hidden_BLD.reshape(-1, hidden_BLD.shape[-1])[inputs.state_index_N])


class TeacherInformedCritic(Critic):
    """Reads the teacher's hidden state and running log-probabilities of the prefix, and the student's detached state.

    The teacher knows where a solution stands better than a small student does; measured explained variance is about
    twice that of a head on the student alone.
    """

    def __init__(self, hidden_size: int, teacher_hidden_size: int, width: int = 64) -> None:
        super().__init__()
        self.student_norm = nn.LayerNorm(hidden_size)
        self.teacher_norm = nn.LayerNorm(teacher_hidden_size)
        first = nn.Linear(hidden_size + teacher_hidden_size + NUM_TEACHER_SCALARS, width)
        self.mlp = nn.Sequential(first, nn.Tanh(), _zero_linear(width))

    def forward(self, inputs: CriticInputs) -> Tensor:
        assert inputs.teacher_hidden_NE is not None
        assert inputs.teacher_scalars_NK is not None
        dtype = self.student_norm.weight.dtype  # float32, or bf16 where an engine keeps or gathers weights in it
        student_ND = inputs.student_hidden_ND.detach()
        with torch.autocast(student_ND.device.type, enabled=False):
            features = [
                self.student_norm(student_ND.to(dtype)),
                self.teacher_norm(inputs.teacher_hidden_NE.to(dtype)),
                inputs.teacher_scalars_NK.to(dtype),
            ]
            return self.mlp(torch.cat(features, dim=-1)).squeeze(-1).to(at_least_float32(student_ND))


def teacher_scalars(logprobs_BT: Tensor, entropy_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """(B, T, 4) of what the teacher thinks of the prefix before token t, each scaled to about one.

    The previous token's log-probability, the lowest so far, the sum so far (all 0 at t = 0), and the entropy of the
    teacher's distribution over token t itself, which does not depend on token t.
    """
    logprobs_BT = torch.where(mask_BT, logprobs_BT, 0.0)
    previous_BT = torch.nn.functional.pad(logprobs_BT[:, :-1], (1, 0))
    lowest_BT = previous_BT.cummin(dim=1).values
    total_BT = previous_BT.cumsum(dim=1)
    scalars = [previous_BT / 4, lowest_BT / 8, total_BT / 16, torch.where(mask_BT, entropy_BT, 0.0)]
    return torch.stack([scalar.clamp(-4, 4) for scalar in scalars], dim=-1)


def flat_teacher_scalars(logprobs_N: Tensor, entropy_N: Tensor, lengths: Sequence[int]) -> Tensor:
    """(N, 4): teacher_scalars of flat tokens, of which row b has lengths[b]."""
    mask_BT = completion_lengths_mask(lengths).to(logprobs_N.device)
    return teacher_scalars(to_padded(logprobs_N, mask_BT), to_padded(entropy_N, mask_BT), mask_BT)[mask_BT]
