"""Is the final answer of a completion the gold answer? The one grader of math answers, for rewards and for evaluation.

It may assume hostile text: nothing of it is ever evaluated in this process, and every scan is linear in it.
It will not guess: exact comparison first (microseconds), algebra in killable processes only where that abstains.
"""

import re
from collections.abc import Callable
from typing import Any

from .base import Unscored, text_of
from .math_compare import decide
from .math_extract import extract_answer, last_box

__all__ = ["extract_answer", "is_match", "math_answer"]


WHOLE_TEXT_CHARACTERS = 80
WORD = re.compile(r"[A-Za-z]{3}")


def math_answer(
    *,
    completions: list,
    answer: list[str | None],
    mode: str = "flexible",
    item_seconds: float = 3.0,
    log_metric: Callable[[str, float], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """1 if the completion's final answer equals the gold one in value, else 0; None where `answer` is None.

    mode: how the answer is found (`extract_answer`). item_seconds: the most CPU time that one answer may cost in
    algebra, then it scores 0. Unscored where the algebra process itself failed (`math_answer/outages`: share of the
    math problems).
    """
    scores: list[float | None] = [None] * len(completions)
    undecided: dict[int, list[tuple[str, str]]] = {}
    for index, (completion, gold) in enumerate(zip(completions, answer, strict=True)):
        if gold is None:
            continue
        decision = _decide(text_of(completion), str(gold), mode)
        if isinstance(decision, bool):
            scores[index] = float(decision)
        else:
            undecided[index] = decision
    verdicts = _verify(list(undecided.values()), item_seconds) if undecided else []
    for index, verdict in zip(undecided, verdicts, strict=True):
        scores[index] = Unscored("outage") if verdict is None else float(verdict)
    num_problems = sum(gold is not None for gold in answer)
    if log_metric is not None and num_problems:
        log_metric("math_answer/outages", sum(verdict is None for verdict in verdicts) / num_problems)
        log_metric("math_answer/algebra", len(undecided) / num_problems)
    return scores


def is_match(prediction: str, gold: str, *, mode: str = "flexible", item_seconds: float = 3.0) -> bool:
    """True if the final answer in `prediction` (a bare answer or a whole solution) equals `gold` in value.

    RuntimeError if the algebra process could not be run at all.
    """
    decision = _decide(prediction, str(gold), mode)
    if isinstance(decision, bool):
        return decision
    verdict = _verify([decision], item_seconds)[0]
    if verdict is None:
        raise RuntimeError("the process that compares formulas could not be started; is math-verify installed?")
    return verdict


def _decide(text: str, gold: str, mode: str) -> bool | list[tuple[str, str]]:
    prediction, gold = extract_answer(text, mode), gold_answer(gold)
    decision = False if prediction is None else decide(prediction, gold)
    if decision is False and mode == "flexible" and len(text) <= WHOLE_TEXT_CHARACTERS and WORD.search(gold):
        return decide(text, gold) is True  # the whole text may be the answer: "June 5"
    return decision


def gold_answer(gold: str) -> str:
    """The answer inside a gold text: itself, or what stands in its last box or after its last `####`."""
    if "boxed" in gold:
        return last_box(gold) or gold
    return gold.rpartition("####")[2].strip() if "####" in gold else gold


def _verify(problems: list[list[tuple[str, str]]], item_seconds: float) -> list[bool | None]:
    from .math_workers import shared_workers

    return shared_workers().verify_all(problems, item_seconds)
