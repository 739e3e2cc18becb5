"""A chat-completions API as the writer of teacher texts: OpenAI's, or any that speaks its language.

It may assume that the API answers or fails: it is asked again while it is away or over its rate limit, and a text that
never came is an error, never an empty text. It will not score.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ...config import TeacherServerConfig, TextAPIConfig
from ...types import Problem
from .client import TeacherHTTPClient, TeacherServerError

TRIES = 2
"""For an answer that came without a text."""


@dataclass(frozen=True)
class Written:
    """One text, and whether the model ended it by itself or at a stop string."""

    text: str
    finished: bool


class TextAPI:
    """One API; `prompt_tokens` and `completion_tokens` are what it says it has counted, for its bill."""

    def __init__(self, settings: TextAPIConfig) -> None:
        server = TeacherServerConfig(
            settings.url,
            settings.model,
            settings.num_connections,
            settings.timeout_s,
            settings.wait_s,
            settings.key_env,
        )
        self.client = TeacherHTTPClient(server, "teacher.text_api", "look at teacher.text_api.url and its key")
        self.settings = settings
        self.fingerprint = hashlib.sha256(f"{self.client.url} {settings.model}".encode()).hexdigest()[:16]
        self.prompt_tokens = self.completion_tokens = 0
        self._lock = threading.Lock()

    def write(
        self,
        problems: Sequence[Problem],
        *,
        max_tokens: int,
        temperature: float,
        top_p: float,
        stop: Sequence[str] = (),
    ) -> list[Written]:
        """One text per problem, in order; equal problems get texts of different seeds. Raises TeacherServerError."""
        how = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
        with ThreadPoolExecutor(self.settings.num_connections, thread_name_prefix="text_api") as pool:
            return list(pool.map(lambda row: self._one(problems[row], how | {"seed": row}, stop), range(len(problems))))

    def _one(self, problem: Problem, how: dict[str, Any], stop: Sequence[str]) -> Written:
        for _ in range(TRIES):
            answer = self.client.chat(messages=messages_of(problem), **how)
            text, reason = self._read(answer, problem)
            if text and reason in ("stop", "length"):
                return cut_at(text, stop) or Written(text, reason == "stop")
        raise TeacherServerError(
            f"teacher.text_api: no text came for problem {problem.key!r} (finish_reason {reason!r}); drop that row, or "
            "raise generation.max_completion_length where the model thinks before it writes"
        )

    def _read(self, answer: dict[str, Any], problem: Problem) -> tuple[str | None, str | None]:
        try:
            choice = answer["choices"][0]
            text, reason = choice["message"].get("content"), choice.get("finish_reason")
            usage = answer.get("usage") or {}
            with self._lock:
                self.prompt_tokens += int(usage.get("prompt_tokens") or 0)
                self.completion_tokens += int(usage.get("completion_tokens") or 0)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise TeacherServerError(
                f"{self.client.url}/chat/completions answered in another form than OpenAI's for problem "
                f"{problem.key!r}: {str(answer)[:200]!r}"
            ) from error
        return text if isinstance(text, str) else None, reason


def messages_of(problem: Problem) -> list[dict[str, Any]]:
    """The problem's conversation; a plain prompt is one user turn."""
    return problem.messages or [{"role": "user", "content": problem.prompt}]


def cut_at(text: str, stop: Sequence[str]) -> Written | None:
    """The text through the first stop string in it, None where there is none: as sampling here would end it."""
    ends = [text.index(word) + len(word) for word in stop if word in text]
    return Written(text[: min(ends)], True) if ends else None
