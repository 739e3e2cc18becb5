"""OpenAI's completions and chat completions: from a request's body to what is decoded, and back.

It may assume hostile bodies. What is not supported is refused by name, never ignored where it would change the answer.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..models.tokenizers import prompt_ids
from .engine import Answer, Work
from .settings import Limits

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "stream": (False,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "functions": ([],),
    "response_format": ({"type": "text"},),
}
"""Fields that would change the answer, with the values that ask for nothing."""
DEFAULT_NEW_TOKENS = 16
MAX_STOPS, MAX_STOP_CHARACTERS, MAX_USER_CHARACTERS, MAX_MESSAGES = 4, 64, 256, 256


class ApiError(Exception):
    """What a client is told: an HTTP status, a message, and a short code that metrics count."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param

    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def bad(param: str, message: str) -> ApiError:
    return ApiError(400, "invalid_value", f"{param}: {message}", param)


@dataclass(frozen=True)
class Asked:
    """A request that was understood; `user` decides the variant."""

    work: Work
    prompt: str
    chat: bool
    user: str | None
    verify: Mapping[str, Any] | None = None


def parse_json(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and numbers of too many digits are ValueErrors
        raise ApiError(400, "invalid_json", "the body is not JSON") from error
    if not isinstance(content, dict):
        raise ApiError(400, "invalid_json", "the body is not a JSON object")
    return content


def parse(body: Mapping[str, Any], tokenizer: Any, limits: Limits, *, chat: bool) -> Asked:
    """What a body asks for. Raises ApiError with status 400."""
    for name, harmless in UNSUPPORTED.items():
        if body.get(name) is not None and body[name] not in harmless:
            raise ApiError(400, "unsupported", f"{name} is not supported by this server", name)
    prompt = _chat_prompt(body.get("messages"), tokenizer) if chat else _text(body, "prompt")
    ids = _ids(prompt, tokenizer, limits)
    length_name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    default = min(DEFAULT_NEW_TOKENS, limits.max_new_tokens)
    work = Work(
        prompt_ids=ids,
        max_new_tokens=_whole(body, length_name, default, 1, limits.max_new_tokens),
        temperature=_number(body, "temperature", 1.0, 0, 2),
        top_p=_number(body, "top_p", 1.0, 1e-6, 1),
        stops=_stops(body.get("stop")),
        seed=_whole(body, "seed", 0, 0, 2**63 - 1),
    )
    return Asked(work, prompt, chat, user_of(body), _verify(body))


def user_of(body: Mapping[str, Any]) -> str | None:
    user = body.get("user")
    if user is not None and (not isinstance(user, str) or not 0 < len(user) <= MAX_USER_CHARACTERS):
        raise bad("user", f"a text of 1 to {MAX_USER_CHARACTERS} characters")
    return user


def response(asked: Asked, answer: Answer, model: str) -> dict[str, Any]:
    """The body of a successful answer."""
    num_prompt = len(asked.work.prompt_ids)
    choice: dict[str, Any] = {"index": 0, "finish_reason": answer.finish.value, "logprobs": None}
    content = {"message": {"role": "assistant", "content": answer.text}} if asked.chat else {"text": answer.text}
    return {
        "id": f"{'chatcmpl' if asked.chat else 'cmpl'}-{uuid.uuid4().hex}",
        "object": "chat.completion" if asked.chat else "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice | content],
        "usage": {
            "prompt_tokens": num_prompt,
            "completion_tokens": answer.num_tokens,
            "total_tokens": num_prompt + answer.num_tokens,
        },
    }


def _text(body: Mapping[str, Any], name: str) -> str:
    text = body.get(name)
    if not isinstance(text, str) or not text:
        raise bad(name, "a text that is not empty")
    return text


def _ids(prompt: str, tokenizer: Any, limits: Limits) -> tuple[int, ...]:
    try:
        ids = tuple(prompt_ids(tokenizer, [prompt])[0])
    except (UnicodeError, TypeError) as error:  # half a surrogate pair
        raise bad("prompt", "not valid Unicode") from error
    if not ids:
        raise bad("prompt", "no token in it")
    if len(ids) > limits.max_prompt_tokens:
        message = f"the prompt has {len(ids)} tokens, the limit is {limits.max_prompt_tokens}"
        raise ApiError(400, "context_length_exceeded", message, "prompt")
    return ids


def _chat_prompt(messages: Any, tokenizer: Any) -> str:
    """The messages in the tokenizer's template; without one, their contents, a line each."""
    if not isinstance(messages, list) or not 0 < len(messages) <= MAX_MESSAGES:
        raise bad("messages", f"a list of 1 to {MAX_MESSAGES} messages")
    for message in messages:
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise bad("messages", "each is an object with the texts role and content")
    if not tokenizer.chat_template:
        return "\n".join(message["content"] for message in messages)
    plain = [{"role": message["role"], "content": message["content"]} for message in messages]
    try:
        return tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # templates are programs: they raise errors of their own
        raise bad("messages", "the chat template refuses them") from error


def _number(body: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or not math.isfinite(value):
        raise bad(name, f"a number from {low:g} to {high:g}")
    return float(value)


def _whole(body: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise bad(name, f"a whole number from {low} to {high}")
    return value


def _stops(value: Any) -> tuple[str, ...]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise bad("stop", f"a text, or a list of at most {MAX_STOPS}")
    for stop in stops:
        if not isinstance(stop, str) or not 0 < len(stop) <= MAX_STOP_CHARACTERS or not _is_unicode(stop):
            raise bad("stop", f"texts of 1 to {MAX_STOP_CHARACTERS} characters")
    return tuple(stops)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _verify(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    kind = body.get("verify")
    if kind is None:
        return None
    if kind not in ("math", "code"):
        raise bad("verify", "`math` or `code`")
    return {"kind": kind} | {name: body.get(name) for name in ("answer", "inputs", "outputs")}
