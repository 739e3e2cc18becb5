"""Byte-level BPE tokenizers in GGUF: vocabulary, merges, kinds of tokens, and the pre-tokenizer by llama.cpp's name.

llama.cpp splits text by rules that it knows by name, so a tokenizer can be exported where one of them splits as its own
does; that is tried on texts, not guessed from the name. llama.cpp does not normalise text (NFC), some tokenizers do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from ..config import ConfigError

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
MODERN = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS: dict[str, tuple[str, ...]] = {
    "gpt-2": (GPT2,),
    "smollm": (r"\p{N}", GPT2),
    "qwen2": (MODERN % 1,),
    "llama-bpe": (MODERN % 3,),
}
"""The expressions of llama.cpp's src/llama-vocab.cpp, applied one after the other."""
IGNORE_MERGES = ("llama-bpe",)
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""llama.cpp's kinds of tokens."""


@dataclass(frozen=True)
class BpeVocabulary:
    """What a GGUF file says of a tokenizer. `kinds` and `tokens` go by id; merges are pairs joined by a space."""

    tokens: list[str]
    kinds: list[int]
    merges: list[str]
    pre: str
    bos: int | None
    eos: int | None
    pad: int | None
    adds_bos: bool

    def encode(self, text: str) -> list[int]:
        """Token ids as llama.cpp has them, special tokens of the text recognised."""
        if not hasattr(self, "_tokenizer"):
            object.__setattr__(self, "_tokenizer", self._build())
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids  # type: ignore[attr-defined]
        return [self.bos, *ids] if self.adds_bos and self.bos is not None else list(ids)

    def _build(self) -> Tokenizer:
        ordinary = {token: place for place, token in enumerate(self.tokens) if self.kinds[place] == NORMAL}
        added = [place for place, kind in enumerate(self.kinds) if kind in (CONTROL, USER_DEFINED)]
        vocab = ordinary | {self.tokens[place]: place for place in added}
        merges = [(first, second) for first, second in (merge.split(" ") for merge in self.merges)]
        ignore_merges = self.pre in IGNORE_MERGES
        tokenizer = Tokenizer(models.BPE(vocab, merges, ignore_merges=ignore_merges))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                *(pre_tokenizers.Split(Regex(rule), behavior="isolated") for rule in PRE_TOKENIZERS[self.pre]),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(
            [AddedToken(self.tokens[place], special=True, normalized=False) for place in added]
        )
        return tokenizer


def vocabulary_of(tokenizer: Any, num_rows: int, texts: Sequence[str]) -> BpeVocabulary:
    """That of a tokenizer for an embedding of `num_rows`. ConfigError where llama.cpp would split otherwise.

    Rows of the embedding without a token are named `[PAD123]` and marked unused, as llama.cpp's converter does.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = json.loads(backend.to_str()) if backend is not None else {"model": {"type": "none"}}
    if state["model"]["type"] != "BPE" or "ByteLevel" not in json.dumps(state["pre_tokenizer"]):
        raise ConfigError("gguf: only byte-level BPE tokenizers can be written")
    ids = tokenizer.get_vocab()
    if max(ids.values()) >= num_rows:
        raise ConfigError(f"gguf: the tokenizer has id {max(ids.values())}, the model {num_rows} embeddings")
    tokens, kinds = [f"[PAD{place}]" for place in range(num_rows)], [UNUSED] * num_rows
    for token, place in ids.items():
        tokens[place], kinds[place] = token, NORMAL
    for place, token in tokenizer.added_tokens_decoder.items():
        kinds[place] = CONTROL if token.special else USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["model"]["merges"]]
    bos = tokenizer.bos_token_id
    adds_bos = bos is not None and list(tokenizer("a")["input_ids"])[:1] == [bos]
    ends = tokenizer.eos_token_id, tokenizer.pad_token_id
    candidates = (BpeVocabulary(tokens, kinds, merges, pre, bos, *ends, adds_bos) for pre in PRE_TOKENIZERS)
    return _fitting(tokenizer, candidates, texts)


def _fitting(tokenizer: Any, candidates: Any, texts: Sequence[str]) -> BpeVocabulary:
    expected = [list(tokenizer(text)["input_ids"]) for text in texts]
    fewest, nearest = len(texts) + 1, ""
    for vocabulary in candidates:
        wrong = sum(vocabulary.encode(text) != ids for text, ids in zip(texts, expected, strict=True))
        if wrong == 0:
            return vocabulary
        if wrong < fewest:
            fewest, nearest = wrong, vocabulary.pre
    raise ConfigError(
        f"gguf: llama.cpp has no pre-tokenizer that splits as this tokenizer does; the nearest, {nearest!r}, gives "
        f"other token ids on {fewest} of {len(texts)} texts"
    )
