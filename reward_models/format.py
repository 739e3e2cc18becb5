"""Form, length and repetition of a completion: TRL's functions where they serve, opened to plain strings.

It may assume completion_ids for lengths (in tokens, EOS included when it was generated).
It will not judge content, except that the cosine length reward asks the math grader whether the answer is right.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

from .base import number_or_none, text_of
from .reasoning import opened_reasoning


def think_format(
    *, completions: list, prompts: list | None = None, rendered_prompt: list[str | None] | None = None, **columns: Any
) -> list[float]:
    """1 if the completion is one `<think>...</think>` followed by an answer, else 0.

    TRL's think_format_reward, but the opening tag may be the prompt's last word, and reasoning alone is no answer.
    """
    opened = opened_reasoning(prompts, rendered_prompt, len(completions))
    return [
        float(_thinks_then_answers(("<think>" if open_ else "") + text_of(completion)))
        for completion, open_ in zip(completions, opened, strict=True)
    ]


def _thinks_then_answers(text: str) -> bool:
    _, closed, answer = text.rpartition("</think>")
    return text.startswith("<think>") and text.count("<think>") == 1 and bool(closed) and bool(answer.strip())


def repetition(
    *, completion_ids: list[list[int]], ngram_size: int = 3, max_penalty: float = -1.0, **columns: Any
) -> list[float]:
    """Share of repeated token n-grams times `max_penalty`, in max_penalty..0 (trl.rewards, arXiv 2502.03373 C.2)."""
    return _built("get_repetition_penalty_reward", ngram_size=ngram_size, max_penalty=max_penalty)(
        completion_ids=completion_ids
    )


def soft_overlong(
    *, completion_ids: list[list[int]], max_completion_len: int, soft_punish_cache: int, **columns: Any
) -> list[float]:
    """0 up to max_completion_len - soft_punish_cache tokens, then down to -1 at max_completion_len (DAPO, eq. 13)."""
    return _built(
        "get_soft_overlong_punishment", max_completion_len=max_completion_len, soft_punish_cache=soft_punish_cache
    )(completion_ids=completion_ids)


def cosine_length(
    *,
    completions: list,
    completion_ids: list[list[int]],
    answer: list[str | None],
    max_len: int,
    min_value_wrong: float = -1.0,
    max_value_wrong: float = -0.5,
    min_value_correct: float = 0.5,
    max_value_correct: float = 1.0,
    prompts: list | None = None,
    rendered_prompt: list[str | None] | None = None,
    finished: list[bool | None] | None = None,
    needs: str = "finished",
    **columns: Any,
) -> list[float | None]:
    """Correctness scaled by length along a half cosine: short and right is best, short and wrong is worst.

    arXiv 2502.03373 C.1. None where there is no gold answer, Unscored where `math_answer` is. The values of
    trl.rewards.get_cosine_scaled_reward, but the answer is judged by `math_answer`, which no answer can hang.
    """
    from .math_answers import math_answer

    verdicts = math_answer(
        completions=completions,
        answer=answer,
        prompts=prompts,
        rendered_prompt=rendered_prompt,
        finished=finished,
        needs=needs,
    )
    scores: list[float | None] = []
    for right, ids in zip(verdicts, completion_ids, strict=True):
        if number_or_none(right) is None:
            scores.append(right)
            continue
        short, long = (max_value_correct, min_value_correct) if right else (min_value_wrong, max_value_wrong)
        shortness = (1.0 + math.cos(math.pi * min(len(ids) / max_len, 1.0))) / 2.0
        scores.append(long + (short - long) * shortness)
    return scores


@functools.cache
def _built(builder: str, **settings: float) -> Callable:
    import trl.rewards

    return getattr(trl.rewards, builder)(**settings)
