"""Exact and near duplicates, and what keeps similar problems apart."""

from .find import Print, Prints, find_duplicates, fingerprint

__all__ = ["Print", "Prints", "find_duplicates", "fingerprint"]
