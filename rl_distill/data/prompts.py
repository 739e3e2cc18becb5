"""The prompt of a row: a column, a template over the columns, or messages in the tokenizer's chat template.

What can be wrong with the settings is told once, by `check_settings`; what is wrong with a row by RowError.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import ConfigError, DataConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MESSAGES = "messages"
Messages = list[dict[str, Any]]


class RowError(ValueError):
    """A row has no prompt; the message says why."""


def check_settings(config: DataConfig, columns: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
    """ConfigError where no row with these columns could have a prompt, or a chat template is asked for and missing."""
    if config.prompt_template is not None:
        check_template(config.prompt_template, columns, "data.prompt_template")
    elif column_of(config, columns) is None:
        raise ConfigError(
            f"data: no column {config.prompt_column!r}; columns are {', '.join(columns)}. Set data.prompt_column or "
            "data.prompt_template"
        )
    if config.chat and not tokenizer.chat_template:
        raise ConfigError(
            "data.chat: the tokenizer has no chat template: take an instruct model, or leave data.chat out and write "
            "the prompt by data.prompt_template"
        )


def check_template(template: str, columns: Sequence[str], name: str) -> None:
    """ConfigError where a template cannot be filled from these columns."""
    hint = "write literal braces twice, as in \\boxed{{}}"
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ConfigError(f"{name}: {error} in {template!r:.80}; {hint}") from error
    if not fields:
        raise ConfigError(f"{name}: {template!r:.80} names no column, so that all prompts would be the same")
    for field in fields:
        column = field.partition(".")[0].partition("[")[0]
        if not column or column.isdigit():
            raise ConfigError(f"{name}: {{{field}}} names no column in {template!r:.80}; {hint}")
        if column not in columns:
            raise ConfigError(f"{name}: no column {column!r}; columns are {', '.join(columns)}; {hint}")


def column_of(config: DataConfig, columns: Sequence[str]) -> str | None:
    """The column with the prompt: that of the settings, else `messages`; None where there is neither."""
    return next((name for name in (config.prompt_column, MESSAGES) if name in columns), None)


class Prompt(NamedTuple):
    """What the model is shown, the messages it renders (None where it is no chat), and the answer they ended with."""

    text: str
    messages: Messages | None = None
    answer: str = ""


def prompt_of(config: DataConfig, row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> Prompt:
    """The prompt of a row. Raises RowError."""
    prompt = filled(config.prompt_template, row) if config.prompt_template is not None else row_value(config, row)
    if isinstance(prompt, str):
        if not prompt.strip():
            raise RowError("the prompt is empty")
        if not config.chat:
            return Prompt(prompt)
        prompt = [{"role": "user", "content": prompt}]
    messages, answer = without_answer(checked_messages(prompt))
    return Prompt(in_template(config, messages, row, tokenizer), messages, answer)


def row_value(config: DataConfig, row: Mapping[str, Any]) -> Any:
    column = column_of(config, list(row))
    value = None if column is None else row[column]
    if value is None:
        raise RowError(f"the prompt ({column or config.prompt_column}) is missing")
    if not isinstance(value, str | list):
        raise RowError(f"the prompt is {type(value).__name__} ({value!r:.40}), not a text or a list of messages")
    return value


def filled(template: str, row: Mapping[str, Any]) -> str:
    """The template over the columns, none of which it names may be missing."""
    for _, field, _, _ in string.Formatter().parse(template):
        if field and row.get(field.partition(".")[0].partition("[")[0]) is None:
            raise RowError(f"the column {field} of the template is missing")
    try:
        return template.format(**row)
    except (KeyError, IndexError, AttributeError, ValueError) as error:
        raise RowError(f"the template cannot be filled ({type(error).__name__}: {error})") from error


def checked_messages(value: Any) -> Messages:
    """The messages as they are; RowError where one lacks a role or its content."""
    if not value:
        raise RowError("the prompt is an empty list")
    for number, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise RowError(f"message {number} is {message!r:.40}, not {{role: ..., content: ...}}")
        if not message.get("content") and not message.get("tool_calls"):
            raise RowError(f"message {number} ({message['role']}) has no content")
    return list(value)


def without_answer(messages: Messages) -> tuple[Messages, str]:
    """(the messages up to the last assistant turn that ends them, its text): a prompt must not hold its answer."""
    answer = ""
    while messages and messages[-1]["role"] == "assistant":
        messages, answer = messages[:-1], str(messages[-1].get("content") or "")
    if not messages:
        raise RowError("the messages hold nothing but assistant turns")
    return messages, answer


def in_template(config: DataConfig, messages: Messages, row: Mapping[str, Any], tokenizer: Any) -> str:
    """The messages in the chat template, with the row's tools and both the run's and the row's template settings."""
    tools = row.get("tools") or None
    tools = json.loads(tools) if isinstance(tools, str) else tools
    kwargs = dict(config.chat_template_kwargs) | dict(row.get("chat_template_kwargs") or {})
    try:
        return tokenizer.apply_chat_template(
            messages, tools=tools, tokenize=False, add_generation_prompt=True, **kwargs
        )
    except Exception as error:  # templates are programs: they raise errors of their own, with words of their own
        raise RowError(f"the chat template refuses it ({' '.join(str(error).split())[:120]})") from error
