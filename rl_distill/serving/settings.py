"""What a server accepts and how it decodes: limits with their ranges, and the variants of `--variant`.

Imports without torch and without the extra `serve`.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from dataclasses import dataclass

from ..config import ConfigError
from ..config.ranges import range_of, ranged


@dataclass(frozen=True)
class Limits:
    """Bounds on what one client can cost. A request beyond one gets an error: it is never cut silently.

    max_body_bytes: of a request (413). body_seconds: for a request's body to arrive (408). max_prompt_tokens,
    max_new_tokens: per request (400). queue_length: requests that wait or decode, per variant (429). batch_size:
    requests decoded together. verify_seconds: for a verdict, in all.
    """

    max_body_bytes: int = ranged(262_144, "[1024, 67108864]")
    body_seconds: float = ranged(10.0, "[0.1, 600]")
    max_prompt_tokens: int = ranged(256, "[1, 131072]")
    max_new_tokens: int = ranged(256, "[1, 131072]")
    queue_length: int = ranged(256, "[1, 100000]")
    batch_size: int = ranged(32, "[1, 1024]")
    verify_seconds: float = ranged(30.0, "[1, 600]")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            interval, value = range_of(field), getattr(self, field.name)
            if interval is not None and value not in interval:
                raise ConfigError(f"--{field.name}: {value} is not {interval}")


@dataclass(frozen=True)
class VariantSpec:
    """A model that is served, and its share of the users."""

    name: str
    folder: str
    share: float

    @classmethod
    def parse(cls, text: str) -> VariantSpec:
        """That of NAME=FOLDER:SHARE; ConfigError where it is not of this form."""
        name, equals, rest = text.partition("=")
        folder, colon, share = rest.rpartition(":")
        if not (name and equals and folder and colon) or not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"--variant {text!r} is not NAME=FOLDER:SHARE, such as smaller=runs/half/student:0.1")
        try:
            number = float(share)
        except ValueError as error:
            raise ConfigError(f"--variant {text!r}: the share {share!r} is not a number") from error
        if not 0 < number < 1:
            raise ConfigError(f"--variant {text!r}: the share must be above 0 and below 1")
        return cls(name, folder, number)


def with_control(folder: str, variants: list[VariantSpec]) -> list[VariantSpec]:
    """The student itself, named `control`, with what the variants leave of the traffic, and then the variants."""
    names = ["control", *(variant.name for variant in variants)]
    if len(set(names)) < len(names):
        raise ConfigError(f"--variant: names must differ, and `control` is the student itself: {', '.join(names)}")
    rest = 1 - sum(variant.share for variant in variants)
    if rest <= 0:
        raise ConfigError("--variant: the shares must sum to less than 1: the student itself gets the rest")
    return [VariantSpec("control", folder, rest), *variants]


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone: a literal loopback address or `localhost`. No name is looked up."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
