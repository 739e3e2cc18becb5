"""One tokenizer for student and teacher: log-probabilities of the same ids are compared, so the maps must agree."""

from __future__ import annotations

from typing import Any

from ..config import ConfigError


def num_token_ids(tokenizer: Any) -> int:
    """The highest id and one: `len(tokenizer)` is less where the ids have holes."""
    return max(tokenizer.get_vocab().values()) + 1


def check_same_tokenizer(student: Any, teacher: Any) -> None:
    """Raises ConfigError naming the first difference: a token with another id, or a missing token.

    Padding rows of the embedding beyond the tokenizer's ids may differ (Qwen2.5: 151936 and 152064); they are cut off.
    """
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    for token, token_id in sorted(ours.items(), key=lambda item: item[1]):
        if theirs.get(token) != token_id:
            other = f"id {theirs[token]}" if token in theirs else "no such token"
            raise ConfigError(
                f"student and teacher have different tokenizers: token {token!r} is id {token_id} in the student's and "
                f"{other} in the teacher's. Exact KL needs one token-to-id map: choose models of one family"
            )
    extra = sorted(set(theirs) - set(ours), key=theirs.__getitem__)
    if extra:
        raise ConfigError(
            f"student and teacher have different tokenizers: the teacher's has {extra[0]!r} (id {theirs[extra[0]]}), "
            "which the student's lacks"
        )
