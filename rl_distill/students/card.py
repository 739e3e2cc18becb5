"""What was cut and what it cost, as student.json for programs and README.md for people, in the student's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .measure import Comparison
from .shape import StudentShapeConfig
from .surgery import Dimensions


@dataclass(frozen=True)
class Size:
    """A model's parameters, tied ones once, and their bytes in its dtype."""

    parameters: int
    bytes: int


@dataclass(frozen=True)
class Cost:
    """The student against its teacher on held-out text, before any training."""

    comparison: Comparison
    teacher_bits_per_byte: float | None
    """on the teacher's own tokens; comparable between vocabularies. None where the rows are token ids"""
    student_bits_per_byte: float | None


@dataclass(frozen=True)
class StudentCard:
    teacher: str
    shape: StudentShapeConfig
    layers: tuple[int, ...]
    """the teacher's index of each layer of the student"""
    groups: tuple[tuple[int, ...], ...]
    """per layer of the student, the teacher's indices of its key/value groups"""
    before: Dimensions
    after: Dimensions
    teacher_size: Size
    student_size: Size
    cost: Cost | None
    num_calibration_tokens: int
    seconds: float
    warnings: tuple[str, ...]
    command: str
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Everything; the comparison with its perplexities."""
        found = asdict(self)
        if self.cost is not None:
            comparison = self.cost.comparison
            found["cost"]["comparison"] |= {
                "teacher_perplexity": comparison.teacher_perplexity,
                "student_perplexity": comparison.student_perplexity,
            }
        return found


def write_card(card: StudentCard, folder: Path) -> None:
    """student.json and README.md in the folder."""
    (folder / "student.json").write_text(json.dumps(card.to_json(), indent=2) + "\n")
    (folder / "README.md").write_text(readme(card))


def readme(card: StudentCard) -> str:
    """The card as Markdown."""
    warnings = [f"- {text}" for text in card.warnings]
    parts = [
        "# A student cut from its teacher",
        f"Teacher: `{card.teacher}`. Not trained since: what follows is what the cut alone did.",
        "\n".join(_table([("", "teacher", "student"), *_rows(card)])),
        *(
            [f"Layers of the teacher that were kept: {', '.join(map(str, card.layers))}."]
            if _fewer_layers(card)
            else []
        ),
        "\n".join(["## Cost", "", *_cost(card)]),
        *(["\n".join(["## Warnings", "", *warnings])] if warnings else []),
        f"## How\n\n```\n{card.command}\n```\n\n{card.seconds:.1f} s; {_versions(card)}. Full record: `student.json`.",
    ]
    return "\n\n".join(parts) + "\n"


def summary(card: StudentCard) -> str:
    """The card in a few lines for the terminal."""
    lines = [f"{name:<22}{old:>16} -> {new}" for name, old, new in _rows(card)]
    return "\n".join([*lines, *_cost(card), *(f"warning: {text}" for text in card.warnings)])


def _fewer_layers(card: StudentCard) -> bool:
    return card.after.num_layers < card.before.num_layers


def _rows(card: StudentCard) -> Iterator[tuple[str, str, str]]:
    names = {
        "num_layers": "layers",
        "num_heads": "attention heads",
        "num_groups": "key/value groups",
        "num_channels": "ffn channels",
        "hidden_size": "hidden width",
        "vocab_size": "vocabulary",
    }
    for field, name in names.items():
        yield name, f"{getattr(card.before, field):,}", f"{getattr(card.after, field):,}"
    share = card.student_size.parameters / card.teacher_size.parameters
    yield "parameters", f"{card.teacher_size.parameters:,}", f"{card.student_size.parameters:,} ({share:.1%})"
    yield "weights, MB", f"{card.teacher_size.bytes / 1e6:,.1f}", f"{card.student_size.bytes / 1e6:,.1f}"


def _cost(card: StudentCard) -> list[str]:
    if card.cost is None:
        return ["Not measured: no calibration text was given."]
    found = card.cost.comparison
    lines = [
        f"On {found.num_tokens:,} held-out tokens, per token:",
        "",
        f"- NLL {found.teacher_nll:.4f} -> {found.student_nll:.4f} nats, perplexity "
        f"{found.teacher_perplexity:.2f} -> {found.student_perplexity:.2f}",
        f"- KL(teacher || student) {found.kl:.4f} nats, same first choice on {found.top1_agreement:.1%} of tokens",
    ]
    if card.cost.teacher_bits_per_byte is not None:
        lines.append(f"- {card.cost.teacher_bits_per_byte:.4f} -> {card.cost.student_bits_per_byte:.4f} bits per byte")
    if found.teacher_mass_kept < 1:
        lines.append(f"- the teacher gives {found.teacher_mass_kept:.4%} of its probability to the kept vocabulary")
    return lines


def _versions(card: StudentCard) -> str:
    return ", ".join(f"{name} {version}" for name, version in card.versions.items())


def _table(rows: list[tuple[str, str, str]]) -> Iterator[str]:
    for place, row in enumerate(rows):
        yield f"| {' | '.join(row)} |"
        if place == 0:
            yield "|---|---:|---:|"
