"""Cut tokenizers: the texts of the corpus keep their pieces, all other texts can still be written and read."""

from __future__ import annotations

import inspect
import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

from rl_distill.config import ConfigError
from rl_distill.demo.problems import make_problems
from rl_distill.students.vocabulary import (
    changed_pieces,
    ids_in,
    kept_tokens,
    renumbered,
    symbols_on_the_way,
    template_texts,
    write_cut_tokenizer,
)

DOCS = [doc for value in vars(shutil).values() if callable(value) and (doc := inspect.getdoc(value))]
PROBLEMS = [p.prompt + p.solution for p in make_problems("train", 100, 0)]
TEXTS = [*PROBLEMS, *DOCS]
CORPUS = [*PROBLEMS[:20], "naïve café, 漢字 and 🙂!"]


def trained(ignore_merges: bool = False, template: bool = False) -> PreTrainedTokenizerFast:
    """Like a Llama 3's: special tokens after the merges, a template that puts one before every text."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    split = pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>", "<pad>")])
    if template:
        start = tokenizer.token_to_id("<s>")
        post = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", start)])
        tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), post])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )


def qwen() -> Qwen2Tokenizer:
    model = json.loads(trained().backend_tokenizer.to_str())["model"]
    return Qwen2Tokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])


KINDS = {
    "plain": trained,
    "llama3": lambda: trained(ignore_merges=True, template=True),
    "qwen": qwen,
}


@pytest.fixture(scope="module", params=list(KINDS))
def pair(request, tmp_path_factory):
    """(the whole tokenizer, the kept ids, the cut one as loaded from its folder)."""
    folder = tmp_path_factory.mktemp("cut")
    whole = KINDS[request.param]()
    kept = kept_tokens(whole, CORPUS)
    write_cut_tokenizer(whole, kept, folder)
    return whole, kept, AutoTokenizer.from_pretrained(folder)


def test_texts_of_the_corpus_keep_their_pieces_and_ids_follow(pair):
    whole, kept, cut = pair
    assert len(cut) == len(kept) < 0.8 * len(whole)
    for text in CORPUS:
        assert cut.tokenize(text) == whole.tokenize(text)
        assert [kept[new] for new in cut(text)["input_ids"]] == whole(text)["input_ids"]
    assert changed_pieces(whole, cut, CORPUS) is None
    assert changed_pieces(whole, cut, TEXTS) is not None  # so the guard can fail


def test_every_token_in_use_or_on_the_way_to_one_is_needed(pair):
    """Nothing else is kept but single bytes and added tokens."""
    whole, kept, _ = pair
    names = {token_id: name for name, token_id in whole.get_vocab().items()}
    pieces = {piece for text in CORPUS for piece in whole.tokenize(text)}
    for token_id in kept:
        name = names[token_id]
        inside = any(name in piece for piece in pieces)
        assert inside or len(name) == 1 or name in whole.get_added_vocab(), name


@settings(deadline=None)
@given(text=st.text())
def test_any_text_survives(pair, text):
    whole, _, cut = pair
    assert cut.decode(cut(text)["input_ids"]) == whole.decode(whole(text)["input_ids"])
    if not isinstance(whole, Qwen2Tokenizer):  # which normalizes
        assert cut.decode(cut(text, add_special_tokens=False)["input_ids"]) == text


def test_special_tokens_keep_their_roles(tmp_path):
    whole = KINDS["llama3"]()
    kept = kept_tokens(whole, CORPUS)
    cut = write_cut_tokenizer(whole, kept, tmp_path)
    for role in ("bos", "eos", "pad"):
        assert getattr(cut, f"{role}_token") == getattr(whole, f"{role}_token")
        assert kept[getattr(cut, f"{role}_token_id")] == getattr(whole, f"{role}_token_id")
    assert cut("1 + 1")["input_ids"][0] == cut.bos_token_id
    assert cut("a</s>b", add_special_tokens=False)["input_ids"][1] == cut.eos_token_id
    assert cut.decode(cut("a</s>b")["input_ids"], skip_special_tokens=True) == "ab"


def test_the_way_to_a_token_by_hand():
    ranks = {("b", "c"): 0, ("a", "bc"): 1, ("a", "b"): 2, ("ab", "c"): 3, ("abc", "abc"): 4}
    assert symbols_on_the_way("abc", ranks) == {"a", "b", "c", "bc", "abc"}  # never by ab
    assert symbols_on_the_way("abcabc", ranks) == {"a", "b", "c", "bc", "abc", "abcabc"}
    assert symbols_on_the_way("ab", ranks) == {"a", "b", "ab"}
    assert symbols_on_the_way("ac", ranks) == {"a", "c"}


def test_a_chat_template_is_part_of_the_corpus():
    whole = trained()
    assert template_texts(whole) == []
    whole.chat_template = "{% for m in messages %}Role {{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    assert template_texts(whole) == ["Role user: \nRole assistant: \n"]


def test_other_kinds_of_tokenizers_are_refused():
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    with pytest.raises(ConfigError, match="byte-level BPE"):
        kept_tokens(PreTrainedTokenizerFast(tokenizer_object=words), ["a b"])
    sentencepiece_like = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")], byte_fallback=True))
    sentencepiece_like.decoder = decoders.ByteFallback()
    with pytest.raises(ConfigError, match="byte-level BPE"):
        kept_tokens(PreTrainedTokenizerFast(tokenizer_object=sentencepiece_like), ["ab"])


def test_ids_in_settings_are_renumbered():
    settings = {
        "eos_token_id": [5, 9],
        "pad_token_id": 5,
        "bos_token_id": None,
        "vocab_size": 9,
        "suppress_tokens": [7],
    }
    assert ids_in(settings) == {5, 7, 9}
    assert renumbered(settings, {5: 0, 7: 1, 9: 2}) == {
        "eos_token_id": [0, 2],
        "pad_token_id": 0,
        "suppress_tokens": [1],
    }
    with pytest.raises(ConfigError, match="bad_words_ids"):
        renumbered({"bad_words_ids": [[3, 4]]}, {3: 0, 4: 1})
