"""How many positions a model was made for, and whether it can go beyond them at all."""

from __future__ import annotations

from transformers import PreTrainedConfig

from ..config.model_facts import positions_of


def num_positions(config: PreTrainedConfig) -> int | None:
    """The longest sequence, with the factor of a stretched RoPE; None where the configuration does not say."""
    text = config.get_text_config()
    return positions_of(text.to_dict())


def has_learned_positions(config: PreTrainedConfig) -> bool:
    """True where a position beyond the last is an index error (GPT-2, OPT), not merely untrained (RoPE)."""
    text = config.get_text_config()
    return not getattr(text, "rope_parameters", None) and not hasattr(text, "rope_theta")
