"""One result of a start-up check, and how results are reported: all at once, one line each.

It may assume nothing of what was looked at. Only `stop_where_bad` ends a run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import UserError

Level = Literal["ok", "warn", "bad"]


class StartError(UserError):
    """A run cannot start; the message has a line for each thing to put right."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at: how it is, and what to do where it is not well."""

    level: Level
    what: str
    detail: str
    do: str = ""

    @property
    def line(self) -> str:
        return ": ".join(part for part in (self.what, self.detail) if part) + (f"; {self.do}" if self.do else "")


def found_by(look: Callable[[], Sequence[Finding]]) -> list[Finding]:
    """The findings of `look`; a UserError it raises becomes a finding as well."""
    try:
        return list(look())
    except UserError as error:
        return [Finding("bad", "", str(error))]


def stop_where_bad(findings: Sequence[Finding]) -> None:
    """Raises StartError with every bad finding."""
    bad = list(dict.fromkeys(finding.line for finding in findings if finding.level == "bad"))
    if len(bad) == 1:
        raise StartError(bad[0])
    if bad:
        raise StartError("\n  - ".join([f"{len(bad)} things stand in the way of this run:", *bad]))


def warn(findings: Sequence[Finding]) -> None:
    """Prints every finding to think about, a line each."""
    for finding in findings:
        if finding.level == "warn":
            print(f"warning: {finding.line}", file=sys.stderr, flush=True)
