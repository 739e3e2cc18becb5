"""How many positions a model was made for, and whether it can go beyond them at all."""

from __future__ import annotations

from transformers import PreTrainedConfig


def num_positions(config: PreTrainedConfig) -> int | None:
    """The longest sequence, with the factor of a stretched RoPE; None where the configuration does not say."""
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    if limit is None:
        return None
    return max(limit, *(_stretched(rope) for rope in _ropes(text)), 0)


def has_learned_positions(config: PreTrainedConfig) -> bool:
    """True where a position beyond the last is an index error (GPT-2, OPT), not merely untrained (RoPE)."""
    return not _ropes(config.get_text_config()) and not hasattr(config.get_text_config(), "rope_theta")


def _ropes(text: PreTrainedConfig) -> list[dict]:
    """The RoPE settings: one set, or one for each kind of layer."""
    found = getattr(text, "rope_parameters", None) or {}
    inner = [value for value in found.values() if isinstance(value, dict)]
    return inner or ([found] if found else [])


def _stretched(rope: dict) -> int:
    original, factor = rope.get("original_max_position_embeddings"), rope.get("factor")
    return int(original * factor) if original and factor else 0
