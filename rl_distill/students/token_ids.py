"""Token ids in a model's settings, renumbered for a smaller vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig

from ..config import ConfigError

LISTS = ("suppress_tokens", "begin_suppress_tokens")
NESTED = ("bad_words_ids", "sequence_bias", "force_words_ids")


def ids_in(settings: Mapping[str, Any]) -> set[int]:
    """The token ids that a config or generation config names."""
    return {token_id for name in _names(settings) for token_id in _as_list(settings[name])}


def renumbered(settings: Mapping[str, Any], new_ids: Mapping[int, int]) -> dict[str, Any]:
    """The settings that name token ids, with their new values; raises ConfigError on nested lists of ids."""
    for name in NESTED:
        if settings.get(name):
            raise ConfigError(f"vocab: generation_config.json has {name}, which cannot be renumbered; remove it first")
    found: dict[str, Any] = {}
    for name in _names(settings):
        value = settings[name]
        found[name] = [new_ids[old] for old in value] if isinstance(value, list) else new_ids[value]
    return found


def renumber_config(config: PreTrainedConfig | GenerationConfig, new_ids: Mapping[int, int]) -> None:
    """In place."""
    for name, value in renumbered(config.to_dict(), new_ids).items():
        setattr(config, name, value)


def _names(settings: Mapping[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        if value is not None and (name.endswith("_token_id") or name in LISTS):
            yield name


def _as_list(value: int | list[int]) -> list[int]:
    return value if isinstance(value, list) else [value]
