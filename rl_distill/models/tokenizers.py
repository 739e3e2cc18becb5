"""One tokenizer for student and teacher, and the one way in which a prompt becomes token ids.

Log-probabilities of the same ids are compared, so student's and teacher's maps must agree. It will not apply a chat
template: a prompt is the text that the model is to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..config import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def num_token_ids(tokenizer: PreTrainedTokenizerBase) -> int:
    """The highest id and one: `len(tokenizer)` is less where the ids have holes."""
    return max(tokenizer.get_vocab().values()) + 1


def check_same_tokenizer(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> None:
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


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of each prompt, beginning once with what the tokenizer puts before a text (BOS, for Llama or Gemma).

    Chat templates write BOS into their text, which is then not put there again. Nothing is added at the end.
    """
    if not prompts:
        return []
    before = ids_before_text(tokenizer)
    rows = tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    return [row if row[: len(before)] == before else before + row for row in rows]


def ids_before_text(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that the tokenizer puts before a text; empty for GPT-2 or Qwen."""
    bare, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    starts = range(len(whole) - len(bare) + 1)
    start = next((start for start in starts if whole[start : start + len(bare)] == bare), 0)
    return list(whole[:start])
