"""Users' verdicts as a JSONL file. A user is written as a keyed hash; the key stays beside the file, readable by its
owner alone. What a client says here is untrusted: check it before it is trained on.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .protocol import ApiError, bad

MOST_BYTES = 2**30
MOST_REMEMBERED = 20_000
MOST_CHARACTERS = 65_536


class FeedbackLog:
    """Rows {time, id, variant, prompt, answer, verdict, correction, user}, appended one line at a time."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self.path, self.most_bytes = path, most_bytes
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._key = _key_beside(path)
        path.touch()

    def add(self, row: Mapping[str, Any], user: str | None) -> None:
        """Raises ApiError 503 once the file has reached its limit."""
        line = json.dumps({"time": round(time.time(), 3), **row, "user": self.hash_of(user)}) + "\n"
        with self._lock:
            if self.path.stat().st_size + len(line) > self.most_bytes:
                raise ApiError(503, "feedback_full", "the feedback file has reached its limit")
            with self.path.open("a", encoding="ascii") as file:
                file.write(line)

    def hash_of(self, user: str | None) -> str | None:
        if user is None:
            return None
        return hashlib.blake2b(user.encode("utf-8", "surrogatepass"), key=self._key, digest_size=16).hexdigest()


def _key_beside(path: Path) -> bytes:
    """The key of PATH.key, made where there is none."""
    place = path.with_name(path.name + ".key")
    try:
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return place.read_bytes()
    with os.fdopen(handle, "wb") as file:
        key = secrets.token_bytes(32)
        file.write(key)
    return key


class Given(NamedTuple):
    """Who got an answer from which variant; `routed` where the router chose it."""

    variant: str
    user: str | None
    routed: bool


class RecentAnswers:
    """Which variant gave which of the last answers; each may be judged once."""

    def __init__(self, size: int = MOST_REMEMBERED) -> None:
        self.size, self._lock = size, threading.Lock()
        self._rows: OrderedDict[str, Given] = OrderedDict()

    def put(self, answer_id: str, given: Given) -> None:
        with self._lock:
            self._rows[answer_id] = given
            if len(self._rows) > self.size:
                self._rows.popitem(last=False)

    def take(self, answer_id: str | None) -> Given | None:
        """What is known of the answer, the first time."""
        with self._lock:
            return self._rows.pop(answer_id, None) if answer_id is not None else None


def parse_feedback(body: Mapping[str, Any]) -> dict[str, Any]:
    """{id, prompt, answer, verdict, correction}. Raises ApiError 400."""
    row: dict[str, Any] = {"id": body.get("id")}
    if row["id"] is not None and (not isinstance(row["id"], str) or len(row["id"]) > 64):
        raise bad("id", "the id of an answer")
    for name in ("prompt", "answer", "correction"):
        text = body.get(name)
        missing = text is None and name == "correction"
        if not missing and (not isinstance(text, str) or len(text) > MOST_CHARACTERS):
            raise bad(name, f"a text of at most {MOST_CHARACTERS} characters")
        row[name] = text
    if not isinstance(body.get("verdict"), bool):
        raise bad("verdict", "true (the answer is good) or false")
    return row | {"verdict": body["verdict"]}
