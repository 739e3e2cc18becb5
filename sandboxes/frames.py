"""Length-prefixed frames over a socket between trusted processes (trainer and judge).

Bodies are JSON objects. `Closed` is raised when the other side is gone.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_HEADER = struct.Struct("<I")


class Closed(Exception):
    """The other end of the socket is gone."""


def send(link: socket.socket, message: dict[str, Any]) -> None:
    """Send one message; blocks until it is written."""
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    try:
        link.sendall(_HEADER.pack(len(body)) + body)
    except (BrokenPipeError, ConnectionError) as error:
        raise Closed from error


def receive(link: socket.socket) -> dict[str, Any]:
    """The next message. Raises Closed at the end, TimeoutError if the socket has a timeout and it passed."""
    (length,) = _HEADER.unpack(_exactly(link, 4))
    return json.loads(_exactly(link, length))


def _exactly(link: socket.socket, count: int) -> bytes:
    chunks = []
    while count:
        try:
            chunk = link.recv(min(count, 1 << 20))
        except ConnectionError as error:
            raise Closed from error
        if not chunk:
            raise Closed
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)
