"""`rl-distill check-sandbox`: which isolation this machine offers, as `python -m sandboxes check` says it."""

from __future__ import annotations

from collections.abc import Sequence

from sandboxes.check import main as check


def main(argv: Sequence[str]) -> int:
    return check(argv, "rl-distill check-sandbox")
