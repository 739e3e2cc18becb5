"""Is the final answer of a completion the gold answer? The one grader of math answers, for rewards and for evaluation.

It may assume hostile text: nothing of it is ever evaluated in this process, and every scan is linear in it.
It will not guess: exact comparison first (microseconds), algebra in killable processes only where that abstains.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from .base import Unscored, text_of
from .finished import credited
from .math_compare import decide
from .math_extract import Extraction, extract_answer
from .math_gold import gold_answer, unparsed_golds
from .math_languages import with_decimal_points
from .reasoning import opened_reasoning

__all__ = ["Extraction", "extract_answer", "gold_answer", "is_match", "math_answer", "unparsed_golds"]

WHOLE_TEXT_CHARACTERS = 80
CHOICE = re.compile("[A-J]")
WORD = re.compile(r"[^\W\d_]{3}|[^\x00-\x7f]")


def math_answer(
    *,
    completions: list,
    answer: list[str | None],
    prompts: list | None = None,
    rendered_prompt: list[str | None] | None = None,
    finished: list[bool | None] | None = None,
    mode: str = "flexible",
    answer_pattern: str | None = None,
    answer_tags: Sequence[str] | None = None,
    decimal_comma: bool = False,
    needs: str = "finished",
    item_seconds: float = 3.0,
    log_metric: Callable[[str, float], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """1 if the completion's final answer equals the gold one in value, else 0; None where `answer` is None.

    mode, answer_pattern, answer_tags, decimal_comma: how the answer is found and read (`Extraction`). needs: "finished"
    gives 0 to a completion that was cut by length, where the column `finished` says so; "anything" grades it as it
    stands. item_seconds: the most CPU time that one answer may cost in algebra, then it scores 0. Unscored where the
    algebra process itself failed (`math_answer/outages`: share of the math problems).
    """
    how = _extraction(mode, answer_pattern, answer_tags, decimal_comma)
    scores: list[float | None] = [None] * len(completions)
    undecided: dict[int, list[tuple[str, str]]] = {}
    graded = credited(finished, needs, len(completions))
    opened = opened_reasoning(prompts, rendered_prompt, len(completions))
    for index, (completion, gold) in enumerate(zip(completions, answer, strict=True)):
        if gold is None:
            continue
        decision = _decide(text_of(completion), str(gold), how, opened[index]) if graded[index] else False
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
        num_cut = sum(not grade for grade, gold in zip(graded, answer, strict=True) if gold is not None)
        log_metric("math_answer/cut", num_cut / num_problems)
    return scores


def is_match(
    prediction: str,
    gold: str,
    *,
    mode: str = "flexible",
    how: Extraction | None = None,
    reasoning_opened: bool = False,
    item_seconds: float = 3.0,
) -> bool:
    """True if the final answer in `prediction` (a bare answer or a whole solution) equals `gold` in value.

    RuntimeError if the algebra process could not be run at all.
    """
    decision = _decide(prediction, str(gold), how or Extraction(mode), reasoning_opened)
    if isinstance(decision, bool):
        return decision
    verdict = _verify([decision], item_seconds)[0]
    if verdict is None:
        raise RuntimeError("the process that compares formulas could not be started; is math-verify installed?")
    return verdict


def _extraction(mode: str, pattern: str | None, tags: Sequence[str] | None, decimal_comma: bool) -> Extraction:
    if tags is None:
        return Extraction(mode, pattern, decimal_comma=decimal_comma)
    return Extraction(mode, pattern, tags if isinstance(tags, str) else tuple(tags), decimal_comma)  # type: ignore[arg-type]


def _decide(text: str, gold: str, how: Extraction, reasoning_opened: bool = False) -> bool | list[tuple[str, str]]:
    prediction, gold = extract_answer(text, how=how, reasoning_opened=reasoning_opened), gold_answer(gold)
    if how.decimal_comma:
        gold = with_decimal_points(gold)
    decision = False if prediction is None else decide(prediction, gold)
    if decision is False and how.mode == "flexible" and how.answer_pattern is None and _may_be_the_answer(text, gold):
        return not reasoning_opened and decide(text, gold) is True
    return decision


def _may_be_the_answer(text: str, gold: str) -> bool:
    """True if the whole text may be the answer: "June 5", or "A. Paris" for A."""
    return len(text) <= WHOLE_TEXT_CHARACTERS and (WORD.search(gold) or CHOICE.fullmatch(gold)) is not None


def _verify(problems: list[list[tuple[str, str]]], item_seconds: float) -> list[bool | None]:
    from .math_workers import shared_workers

    return shared_workers().verify_all(problems, item_seconds)
