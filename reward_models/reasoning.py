"""Where a model's reasoning ends: `<think>` tags in a completion, and prompts whose template already opened one.

It may assume text of any length; every scan is linear. A tag in quotes is a mention, not a tag.
It will not judge what was said.
"""

import re
from typing import Any

from .base import Messages, text_of

# A tag beside a fence is one; beside a quote or a single backtick it is not.
TAG = re.compile(r"(?<!['\"])(?<![^`]`)<(/?)think>(?!['\"]|`(?!``))")
OPENED = re.compile(r"(?<!['\"`])<think>\s*\Z")
LONGEST_TAIL = 200


def opens_reasoning(prompt: str | Messages, rendered: str | None = None) -> bool:
    """True if the completion starts inside reasoning: the prompt ends in `<think>`, or in a turn of the assistant that
    opened it and was to be continued. `rendered` is the prompt as the model saw it, where that is known.
    """
    if isinstance(prompt, str):
        return _ends_open(prompt) or (rendered is not None and _ends_open(rendered))
    if rendered is not None and _ends_open(rendered):
        return True
    if not prompt or prompt[-1].get("role") != "assistant":
        return False
    tags = list(TAG.finditer(text_of(prompt)))
    return bool(tags) and tags[-1][1] == ""


def opened_reasoning(prompts: list, rendered: list[str | None] | None) -> list[bool]:
    """`opens_reasoning` of every prompt of a batch."""
    texts: list[Any] = list(rendered) if rendered is not None else [None] * len(prompts)
    return [opens_reasoning(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]


def after_reasoning(text: str, opened: bool = False) -> str | None:
    """What is said after the reasoning; None where the reasoning never ends and nothing was said before it.

    Reasoning that is closed without having been opened here was opened by the prompt.
    """
    start, before = 0, ""
    for tag in TAG.finditer(text):
        if tag[1]:
            start, opened, before = tag.end(), False, ""
        elif not opened:
            opened, before = True, text[start : tag.start()]
    if not opened:
        return text[start:]
    return before if before.strip() else None


def _ends_open(text: str) -> bool:
    return OPENED.search(text[-LONGEST_TAIL:]) is not None
