"""How near a completion is to what the teacher wrote, or would have written; and plain equality of texts.

It may assume the columns `teacher_output` (one text, several, or None), `teacher_logprobs` and `answer`.
It will not generate: teacher outputs come from the caller, and where there is none the score is None.
"""

import functools
import math
import unicodedata
from fractions import Fraction
from typing import Any

from .base import text_of
from .finished import credited
from .math_languages import ascii_digits
from .math_numbers import quantity
from .reasoning import after_reasoning, opened_reasoning
from .tokenizers import BLEU_TOKENIZERS, ROUGE_TOKENIZERS, bleu_tokenizer, check_choice

TeacherOutput = str | list[str] | None
Answer = str | int | float
FINAL_STOPS = ".。!؟۔।"


def bleu(
    *, completions: list, teacher_output: list[TeacherOutput], tokenize: str = "auto", **columns: Any
) -> list[float | None]:
    """Sentence BLEU in 0..1 against the best of the teacher's outputs (sacrebleu, effective order, exp smoothing).

    tokenize: one of sacrebleu's tokenizers (13a, zh, ja-mecab, ko-mecab, char, intl, none), or "auto": by the script of
    the reference (`tokenizers.bleu_tokenizer`), which is 13a for text in Latin, Cyrillic or Arabic letters.
    """
    check_choice("bleu: tokenize", tokenize, BLEU_TOKENIZERS)

    def similarity(text: str, reference: str) -> float:
        scorer = _bleu_scorer(bleu_tokenizer(reference) if tokenize == "auto" else tokenize)
        return min(1.0, scorer.sentence_score(text, [reference]).score / 100.0)

    return _best_of_references(completions, teacher_output, similarity)


def rouge_l(
    *, completions: list, teacher_output: list[TeacherOutput], tokenize: str = "auto", **columns: Any
) -> list[float | None]:
    """ROUGE-L F1 in 0..1 against the best of the teacher's outputs (lower case, no stemmer).

    Lin, ROUGE (2004). The longest common subsequence is computed on bits, which gives rouge-score's very numbers for
    its own tokens. tokenize: "rouge" (rouge-score's: a-z and 0-9 only), "words" (of any script; Chinese, Japanese and
    Thai by character), "char", or "auto": "rouge" where both texts are ASCII, else "words".
    """
    check_choice("rouge_l: tokenize", tokenize, tuple(ROUGE_TOKENIZERS))

    def similarity(text: str, reference: str) -> float:
        chosen = ("rouge" if (text + reference).isascii() else "words") if tokenize == "auto" else tokenize
        tokens = ROUGE_TOKENIZERS[chosen]
        return lcs_f1(tokens(text), tokens(reference))

    return _best_of_references(completions, teacher_output, similarity)


def teacher_likelihood(*, teacher_logprobs: list[list[float] | None], **columns: Any) -> list[float | None]:
    """exp of the mean teacher log-probability per completion token, EOS included: the geometric mean, in 0..1.

    None where the teacher gave none, or the completion has no token.
    """
    return [math.exp(min(0.0, math.fsum(row) / len(row))) if row else None for row in teacher_logprobs]


def exact_match(
    *,
    completions: list,
    answer: list[Answer | list[Answer] | None],
    prompts: list | None = None,
    rendered_prompt: list[str | None] | None = None,
    finished: list[bool | None] | None = None,
    needs: str = "finished",
    **columns: Any,
) -> list[float | None]:
    """1 if the text after `</think>` is the answer or one of its aliases, up to case, spacing, width and a final stop.

    An answer may be a number: then the text is one of the same value. needs: as in `math_answer`.
    """
    graded = credited(finished, needs, len(completions))
    opened = opened_reasoning(prompts, rendered_prompt, len(completions))
    scores: list[float | None] = []
    for completion, gold, grade, begun in zip(completions, answer, graded, opened, strict=True):
        said = after_reasoning(text_of(completion), begun) if grade else None
        scores.append(None if gold is None else float(said is not None and _is_one_of(said, _as_list(gold))))
    return scores


def lcs_f1(first: list[str], second: list[str]) -> float:
    """F1 of the longest common subsequence of two token lists; 0 if either is empty."""
    if not first or not second:
        return 0.0
    common = lcs_length(first, second)
    precision, recall = common / len(first), common / len(second)
    return 2 * precision * recall / (precision + recall) if common else 0.0


def lcs_length(first: list[str], second: list[str]) -> int:
    """Length of the longest common subsequence, one row of the table per machine-word operation (Hyyrö 2004)."""
    positions: dict[str, int] = {}
    for index, token in enumerate(second):
        positions[token] = positions.get(token, 0) | 1 << index
    ones = (1 << len(second)) - 1
    row = ones  # a zero bit marks a column where the length grows
    for token in first:
        matches = row & positions.get(token, 0)
        row = ((row + matches) | (row - matches)) & ones
    return len(second) - row.bit_count()


def _best_of_references(completions: list, references: list[TeacherOutput], similarity: Any) -> list[float | None]:
    scores: list[float | None] = []
    for completion, outputs in zip(completions, references, strict=True):
        text = text_of(completion)
        scores.append(max((similarity(text, reference) for reference in _as_list(outputs)), default=None))
    return scores


def _as_list(value: Any) -> list:
    if value is None:
        return []
    return [v for v in value if v is not None] if isinstance(value, list | tuple) else [value]


def _is_one_of(text: str, golds: list[Answer]) -> bool:
    said = _plain(text)
    return any(_same_number(said, gold) if _is_number(gold) else said == _plain(str(gold)) for gold in golds)


def _is_number(gold: Answer) -> bool:
    return isinstance(gold, int | float) and not isinstance(gold, bool)


def _same_number(said: str, gold: Any) -> bool:
    number = quantity(said)
    return number is not None and number.unit is None and not number.percent and number.value == Fraction(str(gold))


def _plain(text: str) -> str:
    """Case, spacing, full width and final stops set aside; digits of every script as 0 to 9."""
    text = ascii_digits(unicodedata.normalize("NFKC", text))
    return " ".join(text.casefold().split()).rstrip(FINAL_STOPS).rstrip()


@functools.cache
def _bleu_scorer(tokenize: str) -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True, tokenize=tokenize)
