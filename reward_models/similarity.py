"""How near a completion is to what the teacher wrote, or would have written; and plain equality of texts.

It may assume the columns `teacher_output` (one text, several, or None), `teacher_logprobs` and `answer`.
It will not generate: teacher outputs come from the caller, and where there is none the score is None.
"""

import functools
import math
from typing import Any

from .base import text_of

TeacherOutput = str | list[str] | None


def bleu(
    *, completions: list, teacher_output: list[TeacherOutput], tokenize: str = "13a", **columns: Any
) -> list[float | None]:
    """Sentence BLEU in 0..1 against the best of the teacher's outputs (sacrebleu, effective order, exp smoothing)."""
    scorer = _bleu_scorer(tokenize)

    def similarity(text: str, reference: str) -> float:
        return min(1.0, scorer.sentence_score(text, [reference]).score / 100.0)

    return _best_of_references(completions, teacher_output, similarity)


def rouge_l(*, completions: list, teacher_output: list[TeacherOutput], **columns: Any) -> list[float | None]:
    """ROUGE-L F1 in 0..1 against the best of the teacher's outputs; rouge-score's tokens (lower case, no stemmer).

    Lin, ROUGE (2004). The longest common subsequence is computed on bits, which gives rouge-score's very numbers.
    """
    tokens = _rouge_tokens()

    def similarity(text: str, reference: str) -> float:
        return lcs_f1(tokens(text), tokens(reference))

    return _best_of_references(completions, teacher_output, similarity)


def teacher_likelihood(*, teacher_logprobs: list[list[float] | None], **columns: Any) -> list[float | None]:
    """exp of the mean teacher log-probability per completion token, EOS included: the geometric mean, in 0..1.

    None where the teacher gave none, or the completion has no token.
    """
    return [math.exp(min(0.0, math.fsum(row) / len(row))) if row else None for row in teacher_logprobs]


def exact_match(*, completions: list, answer: list[str | list[str] | None], **columns: Any) -> list[float | None]:
    """1 if the text after `</think>` is the answer or one of its aliases, up to case, spacing and a final full stop."""
    return [
        None if gold is None else float(_plain(text_of(completion)) in {_plain(g) for g in _as_list(gold)})
        for completion, gold in zip(completions, answer, strict=True)
    ]


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


def _as_list(value: str | list[str] | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else [v for v in value if v is not None]


def _plain(text: str) -> str:
    return " ".join(text.rpartition("</think>")[2].casefold().split()).rstrip(".").rstrip()


@functools.cache
def _bleu_scorer(tokenize: str) -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True, tokenize=tokenize)


@functools.cache
def _rouge_tokens() -> Any:
    from rouge_score.tokenizers import DefaultTokenizer

    return functools.lru_cache(maxsize=4096)(DefaultTokenizer(use_stemmer=False).tokenize)
