"""What the scoring teacher thinks of a candidate, as features of the trained reward model: per token its
log-probability and the entropy of its distribution there, which the anchor's pass computes in any case.

It may assume torch, and readings of real candidate tokens alone. It will not ask a teacher for anything.

SHAPES  B rows, T tokens of the longest candidate.   A row without readings has a mask of False throughout.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Readings = Sequence[tuple[float, float]]
"""Of each candidate token: (log-probability, entropy), both in nats, at the temperature of the rollouts."""
NUM_TOKEN_FEATURES = 5
NUM_STATISTICS = 9
WIDTH = 32


class ReadingsHead(nn.Module):
    """Statistics of the readings beside a learned attention pool over the tokens; zeros for a row without readings."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.tokens = nn.Linear(NUM_TOKEN_FEATURES, width)
        self.attention = nn.Linear(width, 1)
        self.joined = nn.Linear(NUM_STATISTICS + width, width)

    def forward(self, readings_BT2: Tensor, mask_BT: Tensor) -> Tensor:
        """(B, width)."""
        features_BTK = token_features(readings_BT2, mask_BT)
        hidden_BTW = nn.functional.silu(self.tokens(features_BTK))
        logits_BT = self.attention(hidden_BTW).squeeze(-1).masked_fill(~mask_BT, -1e9)
        attended_BW = (torch.softmax(logits_BT, dim=1).unsqueeze(-1) * hidden_BTW).sum(1)
        joined_BW = nn.functional.silu(self.joined(torch.cat([statistics(readings_BT2, mask_BT), attended_BW], dim=1)))
        return joined_BW * mask_BT.any(1, keepdim=True)


def token_features(readings_BT2: Tensor, mask_BT: Tensor) -> Tensor:
    """(B, T, 5), each scaled to about one and 0 outside the mask: log-probability, entropy, the lowest log-probability
    up to here, log-probability plus entropy (below 0: less likely than the teacher's average token), place from 0 to 1.
    """
    logprobs_BT, entropy_BT = torch.where(mask_BT.unsqueeze(-1), readings_BT2, 0.0).unbind(-1)
    lowest_BT = logprobs_BT.cummin(dim=1).values
    places_BT = mask_BT.cumsum(1) / mask_BT.sum(1, keepdim=True).clamp(min=1)
    features = [logprobs_BT / 4, entropy_BT, lowest_BT / 8, (logprobs_BT + entropy_BT) / 4, places_BT]
    return torch.stack(features, dim=-1).clamp(-4, 4) * mask_BT.unsqueeze(-1)


def statistics(readings_BT2: Tensor, mask_BT: Tensor) -> Tensor:
    """(B, 9), scaled like the features: mean, lowest, last and summed log-probability; mean and highest entropy; mean
    and lowest log-probability plus entropy; logarithm of the number of tokens. Zeros for a row without tokens.
    """
    logprobs_BT, entropy_BT = torch.where(mask_BT.unsqueeze(-1), readings_BT2, 0.0).unbind(-1)
    surprise_BT, lengths_B = logprobs_BT + entropy_BT, mask_BT.sum(1)
    divisor_B = lengths_B.clamp(min=1)
    last_B1 = (mask_BT * torch.arange(mask_BT.shape[1], device=mask_BT.device)).argmax(1, keepdim=True)
    columns = [
        logprobs_BT.sum(1) / divisor_B,
        logprobs_BT.amin(1) / 8,
        logprobs_BT.gather(1, last_B1).squeeze(1) / 4,
        logprobs_BT.sum(1) / 16,
        entropy_BT.sum(1) / divisor_B,
        entropy_BT.amax(1),
        surprise_BT.sum(1) / divisor_B,
        torch.where(mask_BT, surprise_BT, torch.inf).amin(1).nan_to_num(posinf=0.0) / 8,
        divisor_B.log() / 4,
    ]
    return torch.stack(columns, dim=1).clamp(-4, 4)


def pad_readings(rows: Sequence[Readings | None]) -> dict[str, Tensor]:
    """`readings` (B, T, 2) and `readings_mask` (B, T), padded on the right; nothing where no row has any."""
    length = max((len(row) for row in rows if row), default=0)
    if not length:
        return {}
    readings_BT2, mask_BT = torch.zeros(len(rows), length, 2), torch.zeros(len(rows), length, dtype=torch.bool)
    for number, row in enumerate(rows):
        if row:
            readings_BT2[number, : len(row)] = torch.tensor([list(pair) for pair in row])
            mask_BT[number, : len(row)] = True
    return {"readings": readings_BT2, "readings_mask": mask_BT}
