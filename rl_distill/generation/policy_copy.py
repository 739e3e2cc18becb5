"""A copy of the policy in a narrower dtype: decoding reads every weight for every token, so half the bytes are half the
time where reading them is what takes it.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import PreTrainedModel


class PolicyCopy:
    """Made at the first use; later ones overwrite its weights, so that addresses stay. Quantized weights stay as they
    are.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.model: Any = None

    @torch.no_grad()
    def of(self, policy: PreTrainedModel) -> Any:
        if self.model is None:
            model: torch.nn.Module = copy.deepcopy(policy)
            self.model = model.requires_grad_(False).to(self.dtype).eval()
        for mine, theirs in zip(self.model.parameters(), policy.parameters(), strict=True):
            mine.copy_(theirs)
        return self.model
