"""Runs the application until SIGTERM or Ctrl-C. Then it takes no new connection, answers what it has, and returns."""

from __future__ import annotations

import signal
from typing import Any

import uvicorn

from .settings import is_loopback

MAX_CONNECTIONS = 2048
DRAIN_SECONDS = 30


def serve(app: Any, host: str, port: int) -> None:
    """Returns after a drain. The port 0 takes a free one; the address is printed once the server listens."""
    signal.signal(signal.SIGTERM, lambda number, frame: None)  # uvicorn raises the signal again after its drain
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    _Announcing(config).run()


class _Announcing(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        for server in self.servers if self.started else ():
            for socket in server.sockets[:1]:
                host, port = socket.getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                note = "" if is_loopback(host) else " (reachable from other machines)"
                print(f"serving on http://{shown}:{port}/v1{note}", flush=True)
