"""Which variant answers a user, what outcomes say about the variants, and the roll-back of a worse one."""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from collections.abc import Sequence

from ..settings import VariantSpec
from .sequential import SequentialTest

logger = logging.getLogger(__name__)
MOST_USERS = 1_000_000
"""Outcomes count once per user; beyond so many users no further ones are counted, so memory stays bounded."""


def place_of(user: str) -> float:
    """A number in [0, 1) that depends on the user alone."""
    digest = hashlib.sha256(b"rl_distill A/B\0" + user.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


class Router:
    """The first variant is the control. A user stays with a variant until it is rolled back, then gets the control.

    Each variant is tested against the control at alpha divided by the number of variants.
    """

    def __init__(self, specs: Sequence[VariantSpec], alpha: float = 0.05) -> None:
        self.specs = list(specs)
        self.rolled_back: set[str] = set()
        each = alpha / max(1, len(specs) - 1)
        self.tests = {s.name: SequentialTest.for_shares(each, specs[0].share, s.share) for s in specs[1:]}
        self._seen: set[bytes] = set()
        self._lock = threading.Lock()

    def choose(self, user: str | None) -> str:
        """The name of the variant; without a user a request is on its own."""
        place = place_of(user) if user is not None else secrets.randbits(48) / 2**48
        end = 0.0
        for spec in reversed(self.specs[1:]):  # variants from 0 on, so that the control has the rest
            end += spec.share
            if place < end:
                return self.specs[0].name if spec.name in self.rolled_back else spec.name
        return self.specs[0].name

    def share(self, name: str) -> float:
        """Of the users, now."""
        shares = {spec.name: 0.0 if spec.name in self.rolled_back else spec.share for spec in self.specs[1:]}
        return shares.get(name, 1 - sum(shares.values()))

    def observe(self, name: str, user: str | None, success: bool) -> str | None:
        """Counts an outcome, the first of a user only; the name of a variant that is rolled back by it."""
        with self._lock:
            if not self.tests or (user is not None and not self._is_new(user)):
                return None
            for variant, test in self.tests.items():
                if variant in self.rolled_back or name not in (variant, self.specs[0].name):
                    continue
                test.observe(name == variant, success)
                if test.alarm:
                    self.rolled_back.add(variant)
                    logger.warning("%s is worse than the control: its users get the control from now on", variant)
                    return variant
        return None

    def _is_new(self, user: str) -> bool:
        key = hashlib.blake2b(user.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        if key in self._seen or len(self._seen) >= MOST_USERS:
            return False
        self._seen.add(key)
        return True
