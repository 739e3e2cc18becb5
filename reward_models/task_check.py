"""The verified check of whatever task a problem belongs to, so that a mixed batch needs one reward function only.

It may assume that a problem with the columns of a code benchmark is code, and any other with an `answer` is math.
It will not score a problem that is neither: None.
"""

from collections.abc import Sequence
from typing import Any

from .code_execution import checks_of, code_execution
from .math_answers import math_answer


def task_check(
    *,
    prompts: list,
    completions: list,
    answer: list[str | None] | None = None,
    rendered_prompt: list[str | None] | None = None,
    finished: list[bool | None] | None = None,
    mode: str = "flexible",
    answer_pattern: str | None = None,
    answer_tags: Sequence[str] | None = None,
    decimal_comma: bool = False,
    needs: str = "finished",
    fraction: bool = False,
    packages: Sequence[str] = (),
    log_metric: Any = None,
    **columns: Any,
) -> list[float | None]:
    """`code_execution` where the problem has tests, `math_answer` where it has only an answer, None elsewhere.

    mode, answer_pattern, answer_tags, decimal_comma, needs: how math answers are found (`math_answer`).
    fraction: score code by the share of tests passed instead of all or nothing; packages: what programs may import
    beside the standard library.
    """
    batch = {
        "prompts": prompts,
        "completions": completions,
        "rendered_prompt": rendered_prompt,
        "log_metric": log_metric,
    }
    is_code = [check is not None for check in checks_of(columns, len(completions))]
    code_scores = code_execution(**batch, fraction=fraction, packages=packages, **columns)
    nothing: list[str | None] = [None] * len(completions)
    golds = [None if code else gold for code, gold in zip(is_code, answer or nothing, strict=True)]
    math_scores = math_answer(
        **batch,
        answer=golds,
        finished=finished,
        mode=mode,
        answer_pattern=answer_pattern,
        answer_tags=answer_tags,
        decimal_comma=decimal_comma,
        needs=needs,
    )
    return [c if code else m for c, m, code in zip(code_scores, math_scores, is_code, strict=True)]
