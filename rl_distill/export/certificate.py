"""certificate.json and its section in the model card: what was exported, how far it is from the float model.

Says what was measured and no more: where a limit is not met, the certificate of a forced export says so.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ..files import write_atomically
from .parity import Distance, Speed

FILE_NAME = "certificate.json"
HEADING = "## Export"


@dataclass(frozen=True)
class Limits:
    """What an export must keep to, or is refused. `max_logit_difference` of None: not limited."""

    min_top1_agreement: float
    max_logit_difference: float | None = None
    greedy_identical: bool = False


@dataclass(frozen=True)
class Certificate:
    format: str
    student: str
    limits: Limits
    failures: tuple[str, ...]
    """the limits that were not met; an export that has any exists by --force alone"""
    num_texts: int
    texts_with_equal_ids: int
    first_changed_text: str | None
    distance: Distance
    float_speed: Speed
    speed: Speed
    parameters: int
    float_bytes: int
    bytes: int
    """the weights' files, without tokenizer and card"""
    notes: tuple[str, ...]
    files: dict[str, str]
    """SHA-256 by name"""
    command: str
    versions: dict[str, str]


def failures(limits: Limits, distance: Distance, num_texts: int, num_equal: int) -> Iterator[str]:
    """The limits that are not met, each in words."""
    if num_equal < num_texts:
        yield f"token ids differ on {num_texts - num_equal} of {num_texts} texts"
    if not distance.top1_agreement >= limits.min_top1_agreement:
        yield f"top-1 agreement {distance.top1_agreement:.2%}, at least {limits.min_top1_agreement:.2%} is wanted"
    largest = limits.max_logit_difference
    if largest is not None and not distance.max_logit_difference <= largest:
        yield f"logits differ by up to {distance.max_logit_difference:.2g}, at most {largest:.0e} is allowed"
    if limits.greedy_identical and distance.greedy_identical < distance.num_answers:
        yield f"{distance.num_answers - distance.greedy_identical} of {distance.num_answers} greedy answers differ"


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in the folder but the certificate and the card."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in (FILE_NAME, "README.md"))
    return {str(path.relative_to(folder)): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(certificate: Certificate, folder: Path) -> None:
    """certificate.json, and the section of the card, which replaces that of an earlier export."""
    write_atomically(folder / FILE_NAME, json.dumps(asdict(certificate), indent=2, ensure_ascii=False) + "\n")
    card = folder / "README.md"
    text = card.read_text() if card.is_file() else "# An exported student\n"
    text = re.split(rf"^{HEADING}$", text, maxsplit=1, flags=re.MULTILINE)[0].rstrip()
    write_atomically(card, f"{text}\n\n{section(certificate)}")


def section(c: Certificate) -> str:
    """The certificate as Markdown."""
    warning = [f"**Exported with --force, against its limits:** {'; '.join(c.failures)}."] if c.failures else []
    rows = "\n".join(f"| {name} | {value} |" for name, value in _rows(c))
    table = f"| | {c.format} |\n|---|---:|\n{rows}"
    command = f"```\n{c.command}\n```"
    return "\n\n".join([HEADING, *warning, table, *c.notes, command]) + "\n"


def _rows(c: Certificate) -> Iterator[tuple[str, str]]:
    d = c.distance
    yield "texts with equal token ids", f"{c.texts_with_equal_ids:,} of {c.num_texts:,}"
    yield f"same first choice ({d.num_tokens:,} tokens)", f"{d.top1_agreement:.2%}"
    yield "KL(float, export) per token, mean and largest", f"{d.kl_mean:.2g}, {d.kl_max:.2g} nats"
    yield "logit difference, mean and largest", f"{d.mean_logit_difference:.2g}, {d.max_logit_difference:.2g}"
    yield f"greedy answers of {d.num_new_tokens} tokens that are equal", f"{d.greedy_identical} of {d.num_answers}"
    yield "parameters", f"{c.parameters:,}"
    yield "weights, MB (float32 -> export)", f"{c.float_bytes / 1e6:,.2f} -> {c.bytes / 1e6:,.2f}"
    for name in ("latency_p50_seconds", "latency_p95_seconds"):
        before, after = (1000 * getattr(speed, name) for speed in (c.float_speed, c.speed))
        yield f"{name.removesuffix('_seconds').replace('_', ' ')}, ms (float -> export)", f"{before:.1f} -> {after:.1f}"
    yield (
        "tokens/s, batch of 8 (float -> export)",
        f"{c.float_speed.tokens_per_second:,.0f} -> {c.speed.tokens_per_second:,.0f}",
    )


def summary(c: Certificate) -> str:
    """The certificate for the terminal."""
    lines = [f"{name:<62}{value:>24}" for name, value in _rows(c)]
    return "\n".join([*lines, *c.notes, *(f"not met: {text}" for text in c.failures)])
