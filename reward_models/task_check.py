"""The verified check of whatever task a problem belongs to, so that a mixed batch needs one reward function only.

It may assume that a problem with `test` and `entry_point` is code and any other with an `answer` is math.
It will not score a problem that is neither: None.
"""

from collections.abc import Sequence
from typing import Any

from .code_execution import code_execution
from .math_answers import math_answer


def task_check(
    *,
    prompts: list,
    completions: list,
    answer: list[str | None] | None = None,
    test: list[str | None] | None = None,
    entry_point: list[str | None] | None = None,
    code_prompt: list[str | None] | None = None,
    finished: list[bool | None] | None = None,
    mode: str = "flexible",
    answer_pattern: str | None = None,
    answer_tags: Sequence[str] | None = None,
    decimal_comma: bool = False,
    needs: str = "finished",
    fraction: bool = False,
    log_metric: Any = None,
    **columns: Any,
) -> list[float | None]:
    """`code_execution` where the problem has a test, `math_answer` where it has only an answer, None elsewhere.

    mode, answer_pattern, answer_tags, decimal_comma, needs: how math answers are found (`math_answer`).
    fraction: score code by the share of tests passed instead of all or nothing.
    """
    nothing: list[str | None] = [None] * len(completions)
    test, entry_point, code_prompt = test or nothing, entry_point or nothing, code_prompt or nothing
    code_scores = code_execution(
        prompts=prompts,
        completions=completions,
        test=test,
        entry_point=entry_point,
        code_prompt=code_prompt,
        fraction=fraction,
        log_metric=log_metric,
    )
    is_code = [t is not None and e is not None for t, e in zip(test, entry_point, strict=True)]
    golds = [None if code else gold for code, gold in zip(is_code, answer or nothing, strict=True)]
    math_scores = math_answer(
        completions=completions,
        answer=golds,
        prompts=prompts,
        finished=finished,
        mode=mode,
        answer_pattern=answer_pattern,
        answer_tags=answer_tags,
        decimal_comma=decimal_comma,
        needs=needs,
        log_metric=log_metric,
    )
    return [c if code else m for c, m, code in zip(code_scores, math_scores, is_code, strict=True)]
