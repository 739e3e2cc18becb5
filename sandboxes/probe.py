"""Finds out, by doing, which isolation tier this machine offers.

Starts a real sandbox per tier and looks at what it reports; claims nothing that was not tried.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sandboxes.contract import SandboxError
from sandboxes.pool import Sandbox


@dataclass(frozen=True)
class Report:
    """The best tier ("A", "B", "C" or "none") and, for every better one, why it is out of reach."""

    tier: str
    missing: dict[str, str] = field(default_factory=dict)


def probe() -> Report:
    """Try the tiers from the best down."""
    missing: dict[str, str] = {}
    for tier in ("A", "B", "C"):
        try:
            with Sandbox(num_slots=1, tier=tier, allow_weak_sandbox=True):
                return Report(tier, missing)
        except SandboxError as error:
            missing[tier] = str(error)
    return Report("none", missing)
