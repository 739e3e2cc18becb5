"""Settings of a preparation: what the command line of `rl-distill prepare-data` gives. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..config.ranges import ranged
from .rules import Rules


@dataclass(frozen=True)
class Settings:
    """What is read, what must hold, and what is written."""

    sources: tuple[str, ...]
    out: Path
    prompt_column: str | None = None
    rules: Rules = field(default_factory=Rules)
    check_gold: bool = True
    """Ask training's graders whether each gold answer can be graded."""
    test_sets: tuple[str, ...] = ()
    """Files of problems that no kept row may share an n-gram with."""
    ngram: int = ranged(13, "[1, inf)")
    """Words of such an n-gram."""
    near_duplicates: float | None = ranged(0.6, "(0, 1]")
    """Jaccard similarity of character 5-grams from which two texts are compared closely; None keeps near duplicates."""
    shares: dict[str, float] = field(default_factory=dict)
    """Of splits beside `train`, such as validation."""
    stratify: str | None = None
    """The column whose values every split has in equal shares."""
    key: str | None = None
    """The column of what must stay in one split; None: every text is its own."""
    labels: tuple[str, ...] = ()
    """Columns with the labels of several annotators."""
    min_agreement: float = ranged(0.0, "[0, 1]")
    """Rows whose most frequent label has a smaller share of the labels are left out."""
    augment: tuple[str, ...] = ()
    """Rules that add rows to `train`: renamed, numbers."""
    writers: str | None = None
    """A Python file with `solve` and functions that write the texts of `train` anew."""
    seed: int = ranged(0, "[0, 4294967295]")
    processes: int = ranged(1, "[1, 256]")
    """Worker processes; the output does not depend on them."""
