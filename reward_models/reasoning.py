"""Where a model's reasoning ends: `<think>` and the like in a completion, and prompts that already opened one.

It may assume text of any length; every scan is linear. A tag in quotes is a mention, not a tag.
It will not judge what was said.
"""

import re
from typing import Any

from .base import Messages, text_of

NAMES = "think|thinking|reasoning|thought|thoughts|scratchpad|reflection"
# A tag beside a fence is one; beside a quote or a single backtick it is not.
TAG = re.compile(
    rf"[<\[◁](?<!['\"].)(?<![^`]`.)"  # the character first: the search then skips to it
    rf"(?:(?<=<)(?P<end>/?)(?:{NAMES})>|(?<=\[)(?P<end2>/?)THINK\]|(?<=◁)(?P<end3>/?)think▷)(?!['\"]|`(?!``))"
)
OPENED = re.compile(r"(?<!['\"`])(?:<(?:think|thinking|reasoning|thought)>|\[THINK\]|◁think▷)(?P<begun>[^<>]{0,200})\Z")
LONGEST_TAIL = 260


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
    return bool(tags) and not _closes(tags[-1])


def opened_reasoning(prompts: list | None, rendered: list[str | None] | None, num_completions: int) -> list[bool]:
    """`opens_reasoning` of every prompt of a batch; False for all where neither form of the prompts is known."""
    shown: list[Any] = list(prompts) if prompts is not None else [""] * num_completions
    texts: list[Any] = list(rendered) if rendered is not None else [None] * num_completions
    return [opens_reasoning(prompt, text) for prompt, text in zip(shown, texts, strict=True)]


def after_reasoning(text: str, opened: bool = False) -> str | None:
    """What is said after the reasoning; where that never ends, what was said before it, or None if that is nothing.

    Reasoning that is closed without having been opened here was opened by the prompt.
    """
    start, before = 0, ""
    for tag in TAG.finditer(text):
        if _closes(tag):
            start, opened, before = tag.end(), False, ""
        elif not opened:
            opened, before = True, text[start : tag.start()]
    if not opened:
        return text[start:]
    return before if before.strip() else None


def _closes(tag: re.Match[str]) -> bool:
    return bool(tag["end"] or tag["end2"] or tag["end3"])


def _ends_open(text: str) -> bool:
    """True if the text ends inside reasoning: right after the tag, or after a first few words on the tag's own line."""
    end = text[-LONGEST_TAIL:]
    opening = OPENED.search(end)
    if opening is None or "<|" in opening["begun"]:
        return False
    return not opening["begun"].strip() or re.search(r"(?:^|[\n>:])\s*$", end[: opening.start()]) is not None
