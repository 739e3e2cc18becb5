"""What a server holds: the variants with their engines, and what is counted about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .engine import Decoder, Engine, StudentDecoder
from .protocol import ApiError
from .settings import Limits, VariantSpec


@dataclass
class Variant:
    """A model with its engine and its share of the users."""

    name: str
    share: float
    engine: Engine
    tokenizer: Any


class Service:
    """The first variant is the control."""

    def __init__(self, variants: Sequence[Variant], limits: Limits) -> None:
        self.variants, self.limits = list(variants), limits

    def variant_of(self, body: Mapping[str, Any]) -> Variant:
        """The variant that answers a request. Raises ApiError where `model` names none."""
        name = body.get("model")
        if name is None:
            return self.variants[0]
        found = next((variant for variant in self.variants if variant.name == name), None)
        if found is None:
            names = ", ".join(variant.name for variant in self.variants)
            raise ApiError(404, "model_not_found", f"no such model; there are {names}", "model")
        return found

    def count_error(self, kind: str) -> None:
        pass

    def close(self) -> None:
        """Answers what waits, then ends the engines."""
        for variant in self.variants:
            variant.engine.close()


def load_service(specs: Sequence[VariantSpec], limits: Limits) -> Service:
    """All variants, loaded. ConfigError where a folder holds no whole model."""
    return Service([load_variant(spec, limits) for spec in specs], limits)


def load_variant(spec: VariantSpec, limits: Limits) -> Variant:
    first: list[Decoder] = [StudentDecoder.load(spec.folder)]
    tokenizer = first[0].tokenizer  # type: ignore[attr-defined]

    def make_decoder() -> Decoder:
        return first.pop() if first else StudentDecoder.load(spec.folder)

    engine = Engine(
        make_decoder,
        batch_size=limits.batch_size,
        queue_length=limits.queue_length,
        most_new_tokens=limits.max_new_tokens,
    )
    return Variant(spec.name, spec.share, engine, tokenizer)
