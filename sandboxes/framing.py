"""Length-prefixed frames over a socket between trusted processes (trainer and judge).

Bodies are JSON objects. `Closed` is raised when the other side is gone.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_HEADER = struct.Struct("<I")
_CHUNK = 1 << 16


class Closed(Exception):
    """The other end of the socket is gone."""


def set_patience(link: socket.socket, seconds: float) -> None:
    """Let the kernel give up waiting on `link`: cheaper than a socket timeout, which polls before every step."""
    patience = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)


def send(link: socket.socket, message: dict[str, Any]) -> None:
    """Send one message; blocks until it is written. Raises TimeoutError when the patience of `link` ends."""
    body = _TO_JSON(message).encode("ascii")
    try:
        link.sendall(_HEADER.pack(len(body)) + body)
    except BlockingIOError:
        raise TimeoutError("the other side does not read") from None
    except ConnectionError as error:
        raise Closed from error


def receive(link: socket.socket) -> dict[str, Any]:
    """The next message. Raises Closed at the end, TimeoutError when the patience of `link` ends.

    The two sides take turns, so whatever is there belongs to this message.
    """
    data = _some(link)
    while len(data) < 4:
        data += _some(link)
    missing = 4 + _HEADER.unpack_from(data)[0] - len(data)
    if missing:
        chunks = [data]
        while missing > 0:
            chunks.append(_some(link))
            missing -= len(chunks[-1])
        data = b"".join(chunks)
    return _FROM_JSON(data[4:].decode("ascii"))


def _some(link: socket.socket) -> bytes:
    try:
        chunk = link.recv(_CHUNK)
    except BlockingIOError:
        raise TimeoutError("no message came") from None
    except ConnectionError as error:
        raise Closed from error
    if not chunk:
        raise Closed
    return chunk


_TO_JSON = json.JSONEncoder(separators=(",", ":")).encode
_FROM_JSON = json.JSONDecoder().decode
