"""One self-contained HTML page about one run or several: numbers with intervals, curves, changed answers, settings."""

from .page import write

__all__ = ["write"]
