"""What a server holds: the variants with their engines, the router between them, and what is counted about them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_models.math_answers import is_match

from ..config import ConfigError
from ..models.positions import num_positions
from .ab.routing import Router
from .engine import Decoder, Engine, EngineError, QueueFull, StudentDecoder, Work
from .feedback import FeedbackLog, Given, RecentAnswers
from .metrics import Metrics
from .protocol import ApiError, parse, user_of
from .settings import Limits, VariantSpec
from .verification import Verifier

logger = logging.getLogger(__name__)
ROUTED = "auto"
"""The `model` of a request that the router is to decide; a request without one is the same."""


def is_routed(body: Mapping[str, Any]) -> bool:
    return body.get("model") in (None, ROUTED)


@dataclass
class Variant:
    """A model with its engine."""

    name: str
    engine: Engine
    tokenizer: Any


@dataclass(frozen=True)
class Canary:
    """A prompt whose answer, a number or formula, is known."""

    prompt: str
    answer: str


class Service:
    """The first variant is the control."""

    def __init__(
        self,
        variants: Sequence[Variant],
        router: Router,
        limits: Limits,
        metrics: Metrics,
        feedback: FeedbackLog | None,
    ) -> None:
        self.variants, self.router, self.limits = list(variants), router, limits
        self.metrics, self.feedback = metrics, feedback
        self.recent, self.verifier = RecentAnswers(), Verifier(limits.verify_seconds)
        self._closed = threading.Event()

    def variant_of(self, body: Mapping[str, Any]) -> Variant:
        """The variant that `model` names, else the user's. Raises ApiError where `model` names none."""
        name = self.router.choose(user_of(body)) if is_routed(body) else body["model"]
        found = next((variant for variant in self.variants if variant.name == name), None)
        if found is None:
            names = ", ".join(variant.name for variant in self.variants)
            raise ApiError(404, "model_not_found", f"no such model; there are {ROUTED}, {names}", "model")
        return found

    def count_error(self, kind: str) -> None:
        self.metrics.errors.labels(kind).inc()

    def judged(self, given: Given, source: str, verdict: bool) -> None:
        """Counts an outcome; a variant is rolled back where it is the one too many.

        Answers of a model that was chosen by name say nothing about the variants: those who choose are no random users.
        """
        variant = given.variant
        self.metrics.verdicts.labels(variant, source, "right" if verdict else "wrong").inc()
        if given.routed:
            self.router.observe(variant, given.user, verdict)

    def metrics_text(self) -> bytes:
        for variant in self.variants:
            self.metrics.pending.labels(variant.name).set(variant.engine.num_pending)
            self.metrics.share.labels(variant.name).set(self.router.share(variant.name))
        for name, test in self.router.tests.items():
            self.metrics.evidence.labels(name).set(test.log_evidence)
        return self.metrics.text()

    def watch_canaries(self, canaries: Sequence[Canary], seconds: float) -> None:
        """Sends all canaries to every variant now and then every `seconds`, in a background thread."""

        def watch() -> None:
            while not self._closed.is_set():
                for variant in self.variants:
                    self.ask_canaries(variant, canaries)
                self._closed.wait(seconds)

        threading.Thread(target=watch, name="canaries", daemon=True).start()

    def ask_canaries(self, variant: Variant, canaries: Sequence[Canary]) -> float | None:
        """The share that the variant answers right; None, and the gauge as it was, where it could not be asked."""
        try:
            futures = [variant.engine.submit(self._greedy(variant, canary)) for canary in canaries]
            texts = [future.result(120) for future in futures]
            right = [is_match(text.text, canary.answer) for text, canary in zip(texts, canaries, strict=True)]
        except (EngineError, QueueFull, TimeoutError, RuntimeError) as error:
            logger.warning("the canaries could not be asked: %s", error)
            self.count_error("canary_failed")
            return None
        accuracy = sum(right) / len(right)
        self.metrics.canary_accuracy.labels(variant.name).set(accuracy)
        return accuracy

    def _greedy(self, variant: Variant, canary: Canary) -> Work:
        body = {"prompt": canary.prompt, "temperature": 0, "max_tokens": self.limits.max_new_tokens}
        return parse(body, variant.tokenizer, self.limits, chat=False).work

    def close(self) -> None:
        """Answers what waits, then ends the engines."""
        self._closed.set()
        for variant in self.variants:
            variant.engine.close()
        self.verifier.close()


def read_canaries(path: Path) -> list[Canary]:
    """Rows {"prompt", "answer"} of a JSONL file. ConfigError where one is not."""
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            rows.append(Canary(str(row["prompt"]), str(row["answer"])))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}:{number}: not a JSON object with prompt and answer") from error
    if not rows:
        raise ConfigError(f"{path}: no canary in it")
    return rows


def load_service(specs: Sequence[VariantSpec], limits: Limits, feedback: Path | None = None) -> Service:
    """All variants, loaded. ConfigError where a folder holds no whole model."""
    metrics = Metrics()
    log = None if feedback is None else FeedbackLog(feedback)
    return Service([_load(spec, limits, metrics) for spec in specs], Router(specs), limits, metrics, log)


def _load(spec: VariantSpec, limits: Limits, metrics: Metrics) -> Variant:
    decoder = StudentDecoder.load(spec.folder)
    _check_context(spec, decoder.model, limits)
    first: list[Decoder] = [decoder]

    def make_decoder() -> Decoder:
        return first.pop() if first else StudentDecoder.load(spec.folder)

    engine = Engine(
        make_decoder,
        batch_size=limits.batch_size,
        queue_length=limits.queue_length,
        most_new_tokens=limits.max_new_tokens,
        on_queue_seconds=metrics.queue_seconds.labels(spec.name).observe,
        on_restart=metrics.restarts.labels(spec.name).inc,
    )
    return Variant(spec.name, engine, decoder.tokenizer)


def _check_context(spec: VariantSpec, model: Any, limits: Limits) -> None:
    context = num_positions(model.config)
    wanted = limits.max_prompt_tokens + limits.max_new_tokens
    if context is not None and wanted > context:
        raise ConfigError(
            f"{spec.folder} reads {context} tokens: --max_prompt_tokens and --max_new_tokens must sum to no more, "
            f"not to {wanted}"
        )
