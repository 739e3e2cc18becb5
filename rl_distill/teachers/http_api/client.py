"""The HTTP side of a teacher behind an OpenAI-compatible endpoint of vLLM: requests that outlast an outage.

Written against vLLM's /v1/completions (`prompt_logprobs` and `return_token_ids` are its additions to OpenAI's format).
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import Any

from ... import distributed
from ...config import TeacherServerConfig
from ...errors import UserError

FIRST_CONTACT_S = 15.0
"""A server that is down at the start of a run is reported, not waited for."""
LONGEST_PAUSE_S = 15.0


class TeacherServerError(UserError, RuntimeError):
    """The teacher's server refused a request, or stayed away for longer than the settings allow.

    `status`: what it refused the request with, where it did.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class TeacherHTTPClient:
    """One endpoint; may be used from several threads."""

    def __init__(
        self,
        settings: TeacherServerConfig,
        name: str = "the teacher's server",
        cure: str = "start it (vllm serve MODEL), or set teacher.server.base_url",
    ) -> None:
        """`name` and `cure`: what errors call it, and what they tell the user to do."""
        self.settings, self.name, self.cure = settings, name, cure
        self.url = str(settings.base_url).rstrip("/")
        self.away_since: float | None = None
        self.outages = 0
        self._lock = threading.Lock()
        models = self._models()
        self.model = settings.model or models[0]
        if models and self.model not in models:
            raise TeacherServerError(f"{self.url} does not serve {self.model!r}; it has: {', '.join(models[:20])}")

    def complete(self, **options: Any) -> dict[str, Any]:
        """The first choice of a completion. Raises TeacherServerError."""
        body = {"model": self.model, **options}
        return self._request("/completions", body, self.settings.wait_s)["choices"][0]

    def chat(self, **options: Any) -> dict[str, Any]:
        """The answer to a chat completion, with its usage. Raises TeacherServerError."""
        return self._request("/chat/completions", {"model": self.model, **options}, self.settings.wait_s)

    def _models(self) -> list[str]:
        """The names it serves; empty where it lists none and the settings name one."""
        try:
            return [entry["id"] for entry in self._request("/models", None, FIRST_CONTACT_S)["data"]]
        except TeacherServerError as error:
            if error.status not in (404, 405) or self.settings.model is None:
                raise
            return []

    def _request(self, path: str, body: dict[str, Any] | None, wait_s: float) -> dict[str, Any]:
        """The answer, however many tries it takes within `wait_s` seconds; pauses between them grow."""
        deadline, pause_s = time.monotonic() + wait_s, 0.5
        while True:
            try:
                answer = self._send(path, body)
            except urllib.error.HTTPError as error:
                reason = f"status {error.code}: {' '.join(error.read().decode(errors='replace').split())[:300]}"
                if error.code < 500 and error.code != 429:
                    words = f"{self.url}{path} refused a request with {reason}"
                    raise TeacherServerError(words, error.code) from error
            except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
                reason = str(error) or type(error).__name__
            else:
                self._is_back()
                return answer
            if time.monotonic() + pause_s > deadline:
                raise TeacherServerError(
                    f"{self.name} {self.url} did not answer for {wait_s:.0f} s ({reason}): {self.cure}"
                )
            self._is_away(reason)
            with distributed.excused():  # nobody hangs: the watch is not to end the run over this
                time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _send(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(self.settings.api_key_variable)
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=self.settings.timeout_s) as response:
            return json.load(response)

    def _is_away(self, reason: str) -> None:
        with self._lock:
            if self.away_since is None:
                self.away_since, self.outages = time.monotonic(), self.outages + 1
                print(f"\nteacher server {self.url}: {reason}; the run waits", file=sys.stderr, flush=True)

    def _is_back(self) -> None:
        with self._lock:
            if self.away_since is not None:
                away_s, self.away_since = time.monotonic() - self.away_since, None
                print(f"\nteacher server {self.url}: back after {away_s:.0f} s", file=sys.stderr, flush=True)
