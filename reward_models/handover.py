"""What one reward function receives of a batch: its own copies, with chat as messages or text as it declares.

It may assume plain data in the columns, nested or not. It will not change the batch.
"""

import copy
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, Literal

from .base import Messages, text_of

Form = Literal["text", "messages"]
ATOMS = frozenset({int, float, str, bytes, bool, complex, type(None)})


def copied(value: Any) -> Any:
    """A deep copy: what one function changes, none other sees. Lists of numbers or texts are copied in one go."""
    kind = type(value)
    if kind in ATOMS:
        return value
    if kind is list:
        return value.copy() if ATOMS.issuperset(map(type, value)) else [copied(item) for item in value]
    if kind is dict:
        return {key: copied(item) for key, item in value.items()}
    return copy.deepcopy(value)


def declared_forms(function: Callable) -> dict[str, Form]:
    """How a function's annotations want `prompts` and `completions`: `list[str]` is text, `list[list[...]]` messages.

    Without such an annotation it receives them as GRPOTrainer would give them: chat as messages, text as text.
    """
    forms: dict[str, Form] = {}
    for name in ("prompts", "completions"):
        items = typing.get_args(_hints(function).get(name))
        if items == (str,):
            forms[name] = "text"
        elif items and (items[0] is list or typing.get_origin(items[0]) is list):
            forms[name] = "messages"
    return forms


def in_form(values: list, form: Form | None, role: str, rendered: list[str | None] | None = None) -> list:
    """Prompts (role user) or completions (role assistant) in the form that was declared for them."""
    if form == "messages":
        return [[{"role": role, "content": value}] if isinstance(value, str) else value for value in values]
    if form == "text":
        texts = rendered or [None] * len(values)
        return [_text(value) if text is None else text for value, text in zip(values, texts, strict=True)]
    return values


def _text(value: str | Messages) -> str:
    return value if isinstance(value, str) else "\n".join(text_of([message]) for message in value)


def _hints(function: Callable) -> dict[str, Any]:
    if isinstance(function, functools.partial):
        return _hints(function.func)
    annotated = function if inspect.isroutine(function) else getattr(type(function), "__call__", function)  # noqa: B004
    try:
        return typing.get_type_hints(annotated)
    except (NameError, TypeError, SyntaxError, AttributeError):  # names that only a type checker can see
        return {}
