"""How unsure the trained reward model is: a Bayesian linear regression on what its last layer sees.

With prior w ~ N(0, s^2 / ridge) and noise s^2 the posterior covariance after rows Phi is s^2 (Phi^T Phi + ridge I)^-1
(Bishop 2006, "Pattern Recognition and Machine Learning", eq. 3.54), so a row phi has the leverage
q = phi^T (Phi^T Phi + ridge I)^-1 phi, the spread s sqrt(q) and, noise included, the standard deviation s sqrt(1 + q).
It may assume torch. The prediction itself stays the network's; this says only how far it may be trusted.

SHAPES  N rows, D features of the last layer, P at most MAX_FEATURES of them after projection, and one for the bias.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

MAX_FEATURES = 512
"""More features are projected to so many directions drawn at random, which keeps distances (Johnson-Lindenstrauss)."""
RIDGE = 1.0


class LastLayerPosterior(nn.Module):
    """Leverages of rows against those it was fitted on. Before `fit` every leverage is 0."""

    projection: Tensor
    factor: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        size = min(num_features, MAX_FEATURES)
        self.projects = num_features > MAX_FEATURES
        directions = torch.randn(num_features, size, generator=torch.Generator().manual_seed(0)) / math.sqrt(size)
        self.register_buffer("projection", directions if self.projects else torch.zeros(0))
        self.register_buffer("factor", torch.zeros(size + 1, size + 1))

    def seen(self, features_ND: Tensor) -> Tensor:
        """(N, P + 1) in float64: projected where there are many, with a 1 for the bias."""
        features = features_ND @ self.projection if self.projects else features_ND
        return torch.cat([features, features.new_ones(len(features), 1)], dim=1).double()

    def fit(self, features_ND: Tensor, ridge: float = RIDGE) -> None:
        """Takes the rows that the model learned from; `factor` becomes L^-1, with L L^T = Phi^T Phi + ridge I."""
        seen_NP = self.seen(features_ND)
        precision_PP = seen_NP.T @ seen_NP + ridge * torch.eye(seen_NP.shape[1], dtype=torch.float64).to(seen_NP)
        identity_PP = torch.eye(len(precision_PP), dtype=torch.float64).to(seen_NP)
        factor_PP = torch.linalg.solve_triangular(torch.linalg.cholesky(precision_PP), identity_PP, upper=False)
        self.factor.copy_(factor_PP)

    def forward(self, features_ND: Tensor) -> Tensor:
        """leverage_N, at least 0."""
        return (self.seen(features_ND) @ self.factor.double().T).square().sum(1)


def noise_of(residuals: Sequence[float], leverages: Sequence[float]) -> float:
    """The s of largest likelihood, where each residual has variance s^2 (1 + leverage): on rows not learned from."""
    pairs = list(zip(residuals, leverages, strict=True))
    return math.sqrt(math.fsum(r * r / (1 + q) for r, q in pairs) / len(pairs)) if pairs else 0.0
