"""Everything that scores a completion: similarity to the teacher, checks of the answer, format, a user's own functions.

Every function keeps the calling convention of TRL's GRPOTrainer; `RewardBlend` runs and sums them.
Importing this package imports neither torch nor any grader: names are resolved when they are used.
"""

from .base import RewardError, RewardSpec, Unscored, WeightSchedule, resolve, validate
from .blend import BlendedScores, PendingScores, RewardBlend
from .registry import VERIFYING_REWARDS

__all__ = [
    "VERIFYING_REWARDS",
    "BlendedScores",
    "PendingScores",
    "RewardBlend",
    "RewardError",
    "RewardSpec",
    "Unscored",
    "WeightSchedule",
    "resolve",
    "validate",
]
