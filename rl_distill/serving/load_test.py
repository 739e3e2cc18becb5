"""Latency by load of a server on this machine: requests arrive at random times of a given rate, whether or not earlier
ones were answered (open loop), and latency counts from the time a request was due.

Loopback addresses only; at most a given number of requests and seconds. Clients that wait for an answer before they
send the next request would hide the queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import platform
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..config import ConfigError
from ..config.ranges import range_of, ranged
from .settings import is_loopback

HEADER = (
    "| requests/s | sent | answered | errors | answers/s | tokens/s | p50 ms | p95 ms | p99 ms | client lag ms |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True)
class LoadTest:
    """rates: requests per second, one level after another. seconds: per level. max_requests: in all. timeout_seconds:
    per request. The ramp ends where fewer than half of a level's requests were answered within `goal_seconds`.
    """

    url: str
    rates: tuple[float, ...]
    prompts: tuple[str, ...]
    seconds: float = ranged(10.0, "[0.5, 600]")
    max_tokens: int = ranged(8, "[1, 131072]")
    max_requests: int = ranged(20_000, "[1, 1000000]")
    timeout_seconds: float = ranged(30.0, "[0.1, 600]")
    goal_seconds: float = ranged(1.0, "[0.001, 600]")
    seed: int = ranged(0, "[0, 4294967295]")
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        address = urlsplit(self.url)
        if address.scheme != "http" or not is_loopback(address.hostname or ""):
            raise ConfigError(f"{self.url}: only servers on this machine are tested, such as http://127.0.0.1:8000")
        if not self.rates or any(not 0 < rate <= 10_000 for rate in self.rates):
            raise ConfigError("--rates: numbers above 0 and at most 10000, such as 10,20,40")
        if not self.prompts:
            raise ConfigError("--prompts: no prompt in it")
        for name, value in vars(self).items():
            interval = range_of(self.__dataclass_fields__[name])
            if interval is not None and value not in interval:
                raise ConfigError(f"--{name}: {value} is not {interval}")


@dataclass(frozen=True)
class Level:
    """What was measured at one rate. Latencies are those of answered requests, in seconds; None where there were none.

    `achieved`: answers per second of the time from the first request to the last answer. `lag_p95`: how late the client
    itself sent its requests; where it is large, the client is the limit.
    """

    rate: float
    num_sent: int
    num_answered: int
    errors: dict[str, int]
    achieved: float
    tokens_per_second: float
    p50: float | None
    p95: float | None
    p99: float | None
    lag_p95: float


@dataclass
class _Sample:
    due: float
    lag: float
    end: float = math.nan
    tokens: int = 0
    error: str | None = None


def arrivals(rate: float, seconds: float, draws: random.Random) -> list[float]:
    """Times of a Poisson process of this rate, in [0, seconds)."""
    times, now = [], draws.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += draws.expovariate(rate)
    return times


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value with at least this share of the values at or below it."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None


async def run(test: LoadTest, on_level: Any = lambda level: None) -> list[Level]:
    """The levels that were reached. ConfigError where nothing answers at the address."""
    draws, levels, left = random.Random(test.seed), list[Level](), test.max_requests
    with contextlib.closing(_Client(test.url, test.api_key)) as client:
        first = await _ask(test, client, draws, time.perf_counter())
        if first.error == "ConnectionRefusedError":
            raise ConfigError(f"{test.url}: nothing answers there; start `rl-distill serve` first")
        for rate in test.rates:
            times = arrivals(rate, test.seconds, draws)[:left]
            if not times:
                break
            left -= len(times)
            levels.append(await _level(test, client, rate, times, draws))
            on_level(levels[-1])
            if _is_beyond(levels[-1], test.goal_seconds):
                break
    return levels


def _is_beyond(level: Level, goal: float) -> bool:
    return level.num_answered < level.num_sent / 2 or level.p50 is None or level.p50 > goal


async def _level(test: LoadTest, client: _Client, rate: float, times: Sequence[float], draws: random.Random) -> Level:
    start, tasks = time.perf_counter() + 0.05, []
    for offset in times:
        await asyncio.sleep(max(0.0, start + offset - time.perf_counter()))
        tasks.append(asyncio.create_task(_ask(test, client, draws, start + offset)))
    return summary(rate, await asyncio.gather(*tasks))


class _Client:
    """HTTP/1.1 over connections that are kept: a general client costs as much of a core as a small model's answer."""

    def __init__(self, url: str, api_key: str | None) -> None:
        address = urlsplit(url)
        self.host, self.port = address.hostname or "", address.port or 80
        key = "" if api_key is None else f"Authorization: Bearer {api_key}\r\n"
        path = f"{address.path.rstrip('/').removesuffix('/v1')}/v1/completions"
        self.head = f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\n{key}Content-Length: "
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """(status, content). OSError, EOFError or ValueError where the connection breaks or the answer is no HTTP."""
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(f"{self.head}{len(body)}\r\n\r\n".encode() + body)
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            content = await reader.readexactly(int(headers.get("content-length", "0")))
            status = int(first.split()[1])
        except BaseException:
            writer.close()
            raise
        if headers.get("connection", "").lower() == "close":
            writer.close()
        else:
            self.idle.append((reader, writer))
        return status, content

    def close(self) -> None:
        for _, writer in self.idle:
            writer.close()


async def _ask(test: LoadTest, client: _Client, draws: random.Random, due: float) -> _Sample:
    sample = _Sample(due, time.perf_counter() - due)
    body = {"prompt": draws.choice(test.prompts), "max_tokens": test.max_tokens, "temperature": 0}
    try:
        status, content = await asyncio.wait_for(client.post(json.dumps(body).encode()), test.timeout_seconds)
        sample.end = time.perf_counter()
        if status == 200:
            sample.tokens = int(json.loads(content)["usage"]["completion_tokens"])
        else:
            sample.error = str(status)
    except (OSError, EOFError, ValueError, LookupError, TypeError, asyncio.LimitOverrunError) as error:
        sample.end, sample.error = time.perf_counter(), type(error).__name__
    return sample


def summary(rate: float, samples: Sequence[_Sample]) -> Level:
    answered = [sample for sample in samples if sample.error is None]
    latencies = [sample.end - sample.due for sample in answered]
    span = max(sample.end for sample in samples) - min(sample.due for sample in samples)
    return Level(
        rate=rate,
        num_sent=len(samples),
        num_answered=len(answered),
        errors=dict(Counter(sample.error for sample in samples if sample.error is not None)),
        achieved=len(answered) / span,
        tokens_per_second=sum(sample.tokens for sample in answered) / span,
        p50=quantile(latencies, 0.5),
        p95=quantile(latencies, 0.95),
        p99=quantile(latencies, 0.99),
        lag_p95=quantile([sample.lag for sample in samples], 0.95) or 0.0,
    )


def best_rate(levels: Sequence[Level], goal_seconds: float) -> float | None:
    """The highest rate at which every request was answered and the 95th percentile is below the goal."""
    good = [v.rate for v in levels if v.num_answered == v.num_sent and v.p95 is not None and v.p95 < goal_seconds]
    return max(good, default=None)


def write_report(test: LoadTest, levels: Sequence[Level], folder: Path) -> None:
    """load_test.json and load_test.md in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in asdict(test).items() if name not in ("api_key", "prompts")}
    machine = {"cores": os.cpu_count(), "system": platform.platform(), "load_before": os.getloadavg()[0]}
    report = {
        "settings": settings | {"num_prompts": len(test.prompts)},
        "machine": machine,
        "levels": [asdict(level) for level in levels],
        "best_rate": best_rate(levels, test.goal_seconds),
    }
    (folder / "load_test.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / "load_test.md").write_text(markdown(test, levels))


def markdown(test: LoadTest, levels: Sequence[Level]) -> str:
    best = best_rate(levels, test.goal_seconds)
    found = "no rate" if best is None else f"{best:g} requests/s"
    lines = [
        "# Load test",
        "",
        f"Open loop, Poisson arrivals, {test.seconds:g} s per rate, max_tokens {test.max_tokens}, "
        f"{len(test.prompts)} prompts, seed {test.seed}; client and server share {os.cpu_count()} cores.",
        "",
        f"Highest rate with every request answered and p95 below {test.goal_seconds:g} s: **{found}**.",
        "",
        *HEADER,
        *map(row, levels),
    ]
    return "\n".join(lines) + "\n"


def row(level: Level) -> str:
    """The level as a row of the table."""
    errors = ", ".join(f"{kind} x {count}" for kind, count in sorted(level.errors.items())) or "none"
    p50, p95, p99 = ("-" if p is None else f"{1000 * p:.0f}" for p in (level.p50, level.p95, level.p99))
    cells = [f"{level.rate:g}", level.num_sent, level.num_answered, errors, f"{level.achieved:.1f}"]
    cells += [f"{level.tokens_per_second:.0f}", p50, p95, p99, f"{1000 * level.lag_p95:.0f}"]
    return f"| {' | '.join(map(str, cells))} |"
