"""A tiny student on disk and a server for it on a free port of this machine."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import torch
import uvicorn

from rl_distill.models.loading import load
from rl_distill.serving.app import create_app
from rl_distill.serving.service import Service, load_service
from rl_distill.serving.settings import Limits, VariantSpec
from tests import own_models

LIMITS = Limits(max_body_bytes=16_384, body_seconds=1.0, max_prompt_tokens=64, max_new_tokens=64, queue_length=100)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Untrained models repeat the last token; with larger weights each prompt has a text of its own."""
    folder = own_models.write(tmp_path_factory.mktemp("served"))
    for name in ("student", "small"):
        model, _ = load(folder / name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(8 if parameter.ndim > 1 else 1)
        model.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="session")
def student(models):
    return str(models / "student")


@pytest.fixture
def service(student):
    service = load_service([VariantSpec("control", student, 1.0)], LIMITS)
    yield service
    service.close()


@contextlib.contextmanager
def served(service: Service, **options) -> Iterator[httpx.Client]:
    """A client of a real server in a thread of this process."""
    config = uvicorn.Config(create_app(service, **options), port=0, log_level="error", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    try:
        with httpx.Client(base_url=f"http://{host}:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def client(service):
    with served(service) as client:
        yield client
