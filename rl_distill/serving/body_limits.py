"""A bound on the bytes of a request's body and on the time it takes to arrive, as ASGI middleware.

It reads the whole body before the application sees the request, so a slow client holds a socket and nothing else.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from .protocol import ApiError
from .settings import Limits


class BodyLimits:
    def __init__(self, app: Any, limits: Limits, on_error: Any) -> None:
        self.app, self.limits, self.on_error = app, limits, on_error

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(self._body(scope, receive), self.limits.body_seconds)
        except TimeoutError:
            message = f"the body did not arrive within {self.limits.body_seconds:g} s"
            await self._refuse(send, ApiError(408, "slow_body", message))
            return
        except ApiError as error:
            await self._refuse(send, error)
            return
        if body is None:  # the client has gone
            self.on_error("client_gone")
            return
        await self.app(scope, _replayed(body, receive), send)

    async def _body(self, scope: Any, receive: Any) -> bytes | None:
        limit = self.limits.max_body_bytes
        too_large = ApiError(413, "body_too_large", f"the body is larger than {limit} bytes")
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and (len(value) > 12 or int(value) > limit):
                raise too_large
        chunks, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > limit:
                raise too_large
            if not message.get("more_body"):
                return b"".join(chunks)

    async def _refuse(self, send: Any, error: ApiError) -> None:
        self.on_error(error.code)
        content = json.dumps(error.body()).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        headers.append((b"content-length", str(len(content)).encode()))
        await send({"type": "http.response.start", "status": error.status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def _replayed(body: bytes, receive: Any) -> Any:
    """A `receive` that gives the body once, then what the server says, such as that the client has gone."""
    given = False

    async def replay() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
