"""A tokenizer cut to the tokens that given texts use, in such a way that these texts keep their pieces.

Byte-level BPE only (GPT-2, Llama 3, Qwen, SmolLM). All single bytes and all added tokens stay, so that every text can
still be encoded and decoded. Of models it knows the token ids that their settings name.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from ..config import ConfigError

Merges = Mapping[tuple[str, str], int]
"""The rank of every pair that BPE joins; the lowest goes first."""


ID_LISTS = ("suppress_tokens", "begin_suppress_tokens")
NESTED_IDS = ("bad_words_ids", "sequence_bias", "force_words_ids")


def kept_tokens(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> list[int]:
    """The ids that stay, rising: those of the texts, what these are merged from, single bytes and added tokens.

    BPE joins inside a piece what it would join were the piece alone, so the way to every used token is found from the
    token by itself. With the whole way kept, the lowest-ranked pair of a text is the same as before at every step.
    """
    model = byte_level_bpe(tokenizer)
    ids_of: dict[str, int] = model["vocab"]
    ranks = merge_ranks(model)
    added = {token["id"] for token in _parts(tokenizer)["added_tokens"]}
    used = {token_id for text in texts for token_id in tokenizer(text)["input_ids"]}
    names = {token_id: name for name, token_id in ids_of.items()}
    on_the_way = {
        part for token_id in used - added if token_id in names for part in symbols_on_the_way(names[token_id], ranks)
    }
    single_bytes = set(pre_tokenizers.ByteLevel.alphabet()) & set(ids_of)
    return sorted(used | added | {ids_of[part] for part in on_the_way | single_bytes})


def byte_level_bpe(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The model part of the tokenizer; raises ConfigError where it is of another kind."""
    if not tokenizer.is_fast:
        raise ConfigError("vocab: only fast tokenizers can be cut (this one has no tokenizer.json)")
    parts = _parts(tokenizer)
    model = parts["model"]
    if model["type"] != "BPE" or '"ByteLevel"' not in json.dumps(parts["decoder"]):
        raise ConfigError(f"vocab: only byte-level BPE can be cut, this tokenizer is {model['type']} of another kind")
    if any(model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix", "dropout")):
        raise ConfigError("vocab: BPE with word prefixes, suffixes or dropout cannot be cut")
    return model


def _parts(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return json.loads(tokenizer.backend_tokenizer.to_str())


def merge_ranks(model: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """The rank of every pair; tokenizer.json writes a pair as a list or, in older files, as one string."""
    pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
    return {(left, right): rank for rank, (left, right) in enumerate(pairs)}


def symbols_on_the_way(token: str, ranks: Merges) -> set[str]:
    """Every symbol that BPE makes while it builds `token` from its characters, these and the last ones included."""
    symbols = list(token)
    seen = set(symbols)
    while True:
        pairs = [(ranks[pair], place) for place, pair in enumerate(itertools.pairwise(symbols)) if pair in ranks]
        if not pairs:
            return seen
        _, place = min(pairs)
        symbols[place : place + 2] = ["".join(symbols[place : place + 2])]
        seen.add(symbols[place])


def write_cut_tokenizer(
    tokenizer: PreTrainedTokenizerBase, kept: Sequence[int], folder: Path
) -> PreTrainedTokenizerBase:
    """The tokenizer with the kept ids alone, renumbered in their order, saved to `folder` and loaded again."""
    new_ids = {old: new for new, old in enumerate(kept)}
    wanted = {name: new_ids[old] for name, old in tokenizer.get_vocab().items() if old in new_ids}
    tokenizer.save_pretrained(folder)
    parts = _cut_parts(_parts(tokenizer), new_ids)
    for name in ("vocab.json", "merges.txt", "added_tokens.json"):  # older copies of what tokenizer.json says
        (folder / name).unlink(missing_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(parts, ensure_ascii=False, indent=2))
    _renumber_settings(folder / "tokenizer_config.json", new_ids)
    loaded = AutoTokenizer.from_pretrained(folder)
    if loaded.get_vocab() != wanted:
        wrong = sorted(set(loaded.get_vocab().items()) ^ set(wanted.items()))[:3]
        raise ConfigError(f"vocab: this tokenizer cannot be cut; after loading it again these tokens differ: {wrong}")
    return loaded


def _cut_parts(parts: dict[str, Any], new_ids: Mapping[int, int]) -> dict[str, Any]:
    """tokenizer.json with kept tokens, the merges among them, and new ids wherever it names one."""
    parts = copy.deepcopy(parts)
    model = parts["model"]
    model["vocab"] = {name: new_ids[old] for name, old in model["vocab"].items() if old in new_ids}
    ordered = sorted(merge_ranks(model).items(), key=lambda item: item[1])
    model["merges"] = [list(pair) for pair, _ in ordered if {*pair, "".join(pair)} <= set(model["vocab"])]
    for token in parts["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    _renumber_post_processor(parts["post_processor"], new_ids)
    return parts


def _renumber_post_processor(processor: dict[str, Any] | None, new_ids: Mapping[int, int]) -> None:
    if processor is None:
        return
    for part in processor.get("processors", ()):
        _renumber_post_processor(part, new_ids)
    if processor["type"] == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [new_ids[old] for old in token["ids"]]
    for name in ("sep", "cls"):
        if name in processor:
            token, old = processor[name]
            processor[name] = [token, new_ids[old]]


def _renumber_settings(path: Path, new_ids: Mapping[int, int]) -> None:
    settings = json.loads(path.read_text())
    added = settings.get("added_tokens_decoder")
    if added:
        settings["added_tokens_decoder"] = {str(new_ids[int(old)]): token for old, token in added.items()}
        path.write_text(json.dumps(settings, ensure_ascii=False, indent=2))


def template_texts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """A short chat as the tokenizer's template renders it, so that the template keeps its pieces; none without one."""
    if not tokenizer.chat_template:
        return []
    messages = [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]
    return [str(tokenizer.apply_chat_template(messages, tokenize=False))]


def changed_pieces(
    teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase, texts: Iterable[str]
) -> str | None:
    """The first text that the two tokenizers split differently; None where they agree on all."""
    return next((text for text in texts if teacher.tokenize(text) != student.tokenize(text)), None)


def ids_in(settings: Mapping[str, Any]) -> set[int]:
    """The token ids that a config or generation config names."""
    return {token_id for name in _names(settings) for token_id in _as_list(settings[name])}


def renumbered(settings: Mapping[str, Any], new_ids: Mapping[int, int]) -> dict[str, Any]:
    """The settings that name token ids, with their new values; raises ConfigError on nested lists of ids."""
    for name in NESTED_IDS:
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
        if value is not None and (name.endswith("_token_id") or name in ID_LISTS):
            yield name


def _as_list(value: int | list[int]) -> list[int]:
    return value if isinstance(value, list) else [value]
