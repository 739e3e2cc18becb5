"""What /metrics shows, in Prometheus' format; a registry per server, so that two in one process do not mix.

Labels come from fixed sets and the variants' names: nothing that a client writes becomes one.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)
PREFIX = "rl_distill"


class Metrics:
    """Counters and histograms; quantiles are computed by the reader from the buckets (`histogram_quantile`)."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"{PREFIX}_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"{PREFIX}_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(f"{PREFIX}_{name}", text, labels, registry=registry, buckets=SECONDS)

        self.answers = counter("answers", "requests that were answered", "variant", "finish")
        self.errors = counter("errors", "requests that were refused or failed", "kind")
        self.tokens = counter("tokens", "tokens read and written", "variant", "kind")
        self.verdicts = counter("verdicts", "verified answers and users' verdicts", "variant", "source", "verdict")
        self.restarts = counter("engine_restarts", "decoders made anew after a failure", "variant")
        self.request_seconds = histogram("request_seconds", "from a body's arrival to its answer", "variant")
        self.queue_seconds = histogram("queue_seconds", "from a request's arrival to its batch", "variant")
        self.pending = gauge("pending_requests", "requests that wait or decode", "variant")
        self.share = gauge("share", "share of the users", "variant")
        self.evidence = gauge("worse_log_evidence", "log of the e-process against the variant", "variant")
        self.canary_accuracy = gauge("canary_accuracy", "share of canary prompts answered right", "variant")

    def text(self) -> bytes:
        return generate_latest(self.registry)
