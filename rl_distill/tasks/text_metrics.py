"""Numbers for free text (BLEU-4, ROUGE-L, exact match, F1) and for classes (accuracy, macro-F1, AUC), all in 0..1.

It may assume one text and its references. Similarities are those that reward training (reward_models/similarity.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from reward_models import similarity
from reward_models.tokenizers import bleu_tokenizer


def corpus_bleu(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU-4 of a whole corpus (Papineni et al. 2002); not a mean of sentence scores.

    sacrebleu with 13a tokens, or those of the references' script.
    """
    from sacrebleu.metrics import BLEU

    width = max((len(group) for group in references), default=0)
    columns = [[group[i] if i < len(group) else "" for group in references] for i in range(width)]
    tokenize = bleu_tokenizer(" ".join(row for group in references for row in group[:1]))
    return BLEU(tokenize=tokenize).corpus_score(list(texts), columns).score / 100 if texts else float("nan")


def rouge_l(text: str, references: Sequence[str]) -> float:
    """ROUGE-L F1 against the best reference."""
    return similarity.rouge_l(completions=[text], teacher_output=[list(references)])[0] or 0.0


def exact_match(text: str, references: Sequence[str]) -> float:
    """1 if the text is a reference up to case, spacing and a final full stop."""
    return similarity.exact_match(completions=[text], answer=[list(references)])[0] or 0.0


def f1(text: str, references: Sequence[str]) -> float:
    """Word F1 against the best reference; words in lower case without punctuation."""
    return max((bag_f1(words(text), words(reference)) for reference in references), default=0.0)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def bag_f1(prediction: Sequence[str], gold: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of items counted with repetition; 0 if none is shared."""
    common = (Counter(prediction) & Counter(gold)).total()
    return 2 * common / (len(prediction) + len(gold)) if common else 0.0


def first_label(text: str, labels: Sequence[str]) -> str | None:
    """The label that the text names first, as a whole word in any case; None if it names none."""
    alternatives = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
    match = re.search(rf"(?<!\w)(?:{alternatives})(?!\w)", text, re.IGNORECASE) if labels else None
    if match is None:
        return None
    return next(label for label in labels if label.lower() == match[0].lower())


def macro_f1(predicted: Sequence[str | None], gold: Sequence[str]) -> float:
    """Mean over the classes of `gold` of 2 TP / (2 TP + FP + FN); a prediction of None is wrong for its class."""
    scores = []
    for label in sorted(set(gold)):
        hits = sum(p == label and g == label for p, g in zip(predicted, gold, strict=True))
        total = sum(p == label for p in predicted) + sum(g == label for g in gold)
        scores.append(2 * hits / total)
    return sum(scores) / len(scores) if scores else float("nan")


def auc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """The share of (positive, negative) pairs that the scores put in the right order, ties counted half.

    NaN where there are no positives or no negatives.
    """
    order = sorted(set(scores))
    counts = {score: [0, 0] for score in order}
    for score, is_positive in zip(scores, positive, strict=True):
        counts[score][is_positive] += 1
    num_positive = sum(positive)
    num_pairs = num_positive * (len(positive) - num_positive)
    below, wins = 0, 0.0
    for score in order:
        negatives, positives = counts[score]
        wins += positives * (below + negatives / 2)
        below += negatives
    return wins / num_pairs if num_pairs else float("nan")
