"""The HTTP application: routes, keys and errors, over engines that decode.

Every error has OpenAI's shape. Nothing of a request is logged except by /feedback.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from .body_limits import BodyLimits
from .engine import Answer, EngineError, QueueFull
from .feedback import Given, parse_feedback
from .protocol import ApiError, Asked, parse, parse_json, response, user_of
from .service import ROUTED, Service, Variant, is_routed
from .verification import check_verify


def create_app(service: Service, api_key: str | None = None) -> FastAPI:
    """The application; `service` is closed, after what waits was answered, when the server shuts down."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.close)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    _add_errors(app, service)
    _add_routes(app, service, api_key)
    _add_feedback(app, service, api_key)
    app.add_middleware(BodyLimits, limits=service.limits, on_error=service.count_error)
    return app


def _add_errors(app: FastAPI, service: Service) -> None:
    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> JSONResponse:
        service.count_error(error.code)
        headers = {"Retry-After": "1"} if error.status in (429, 503) else None
        return JSONResponse(error.body(), error.status, headers)

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def no_route(request: Request, error: Exception) -> JSONResponse:
        status = getattr(error, "status_code", 404)
        return await api_error(request, ApiError(status, "no_such_route", "there is nothing at this path"))

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        return await api_error(request, ApiError(500, "internal_error", f"unforeseen: {type(error).__name__}"))


def _add_routes(app: FastAPI, service: Service, api_key: str | None) -> None:
    async def body_of(request: Request) -> dict[str, Any]:
        check_key(request, api_key)
        return parse_json(await request.body())

    @app.get("/health")
    async def health() -> JSONResponse:
        states = {variant.name: variant.engine.is_ready for variant in service.variants}
        return JSONResponse({"ready": all(states.values()), "variants": states}, 200 if all(states.values()) else 503)

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        check_key(request, api_key)
        names = [ROUTED, *(variant.name for variant in service.variants)]
        rows = [{"id": name, "object": "model", "owned_by": "rl_distill"} for name in names]
        return {"object": "list", "data": rows}

    @app.post("/v1/completions")
    async def completions(request: Request) -> JSONResponse:
        return JSONResponse(await complete(service, await body_of(request), chat=False))

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> JSONResponse:
        return JSONResponse(await complete(service, await body_of(request), chat=True))


def check_key(request: Request, api_key: str | None) -> None:
    """Raises ApiError 401 where a key is asked for and another, or none, was sent."""
    if api_key is None:
        return
    sent = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(sent.encode(), api_key.encode()):
        raise ApiError(401, "invalid_api_key", "the API key is missing or wrong")


def _add_feedback(app: FastAPI, service: Service, api_key: str | None) -> None:
    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        check_key(request, api_key)
        return Response(service.metrics_text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.post("/feedback")
    async def feedback(request: Request) -> JSONResponse:
        check_key(request, api_key)
        if service.feedback is None:
            raise ApiError(404, "no_feedback", "this server was started without --feedback")
        body = parse_json(await request.body())
        row, user = parse_feedback(body), user_of(body)
        known = service.recent.take(row["id"])
        variant = None if known is None else known.variant
        await run_in_threadpool(service.feedback.add, {"variant": variant, **row}, user)
        if known is not None:
            service.judged(known, "feedback", row["verdict"])
        return JSONResponse({"counted": known is not None})


async def complete(service: Service, body: dict[str, Any], *, chat: bool) -> dict[str, Any]:
    """The answer to a request. Raises ApiError."""
    start = time.monotonic()
    variant = service.variant_of(body)
    asked = await run_in_threadpool(parse, body, variant.tokenizer, service.limits, chat=chat)
    if asked.verify is not None:
        check_verify(asked.verify)
    answer = await _answered(variant, asked)
    sent = response(asked, answer, variant.name)
    given = Given(variant.name, asked.user, is_routed(body))
    metrics, name = service.metrics, variant.name
    metrics.request_seconds.labels(name).observe(time.monotonic() - start)
    metrics.answers.labels(name, answer.finish.value).inc()
    metrics.tokens.labels(name, "prompt").inc(len(asked.work.prompt_ids))
    metrics.tokens.labels(name, "completion").inc(answer.num_tokens)
    if asked.verify is not None:
        sent["verification"] = await service.verifier.verdict(asked.verify, asked.prompt, answer.text)
        if sent["verification"]["verdict"] is not None:
            service.judged(given, "verify", sent["verification"]["verdict"])
    else:
        service.recent.put(sent["id"], given)
    return sent


async def _answered(variant: Variant, asked: Asked) -> Answer:
    try:
        return await asyncio.wrap_future(variant.engine.submit(asked.work))
    except QueueFull as error:
        raise ApiError(429, "queue_full", f"{error}; send the request again later") from error
    except EngineError as error:
        raise ApiError(503, "engine_unavailable", str(error)) from error
