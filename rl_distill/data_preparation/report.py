"""What a preparation did: report.json, the same as report.md to read, and manifest.json with all hashes."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

from ..files import finite, write_atomically
from .agreement import fleiss_kappa
from .examine import labels_of
from .files import sha256
from .rules import num_words
from .settings import Settings
from .texts import Row, prompt_text

MOST_EXAMPLES = 20
"""Per reason; removed.jsonl has all."""
SHOWN = 300
"""Characters of an example."""
WORDS = (8, 16, 32, 64, 128, 256, 512, 1024)
REASONS = {
    "no_json_object": "the line is no JSON object",
    "no_prompt": "no column with a prompt",
    "empty_prompt": "the prompt is empty",
    "broken_text": "replacement or control characters, or UTF-8 read as Latin-1",
    "too_long": "the prompt is too long",
    "too_short": "the prompt has too few words",
    "mostly_symbols": "too few of the characters are letters or digits",
    "repeated_lines": "too many lines repeat an earlier one",
    "other_script": "most letters are of another script",
    "no_gold": "neither an answer nor tests",
    "labels_disagree": "the annotators disagree",
    "gold_unreadable": "no answer can be told in the gold text",
    "gold_fails": "the gold answer does not grade as correct, or the program fails its own tests",
    "contaminated": "shares an n-gram with a test set",
    "conflicting_gold": "the same text with two gold answers; all its rows go",
    "duplicate": "the same text as an earlier row, case, punctuation and the writing of numbers aside",
    "near_duplicate": "nearly the same text as an earlier row, same numbers, relations and gold",
}


@dataclasses.dataclass
class Tally:
    """Counts and examples, filled row by row."""

    num_read: int = 0
    num_changed: int = 0
    reasons: Counter[str] = dataclasses.field(default_factory=Counter)
    examples: dict[str, list[dict[str, str]]] = dataclasses.field(default_factory=dict)
    splits: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)
    lengths: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)
    ratings: list[list[Any]] = dataclasses.field(default_factory=list)
    unlabelled: int = 0

    def read(self, row: Row, changed: bool, settings: Settings) -> None:
        self.num_read += 1
        self.num_changed += changed
        if settings.labels:
            labels = labels_of(row, settings.labels)
            if len(labels) == len(settings.labels):
                self.ratings.append(labels)
            else:
                self.unlabelled += 1

    def removed(self, reason: str, place: str, text: str, detail: str) -> None:
        self.reasons[reason] += 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < MOST_EXAMPLES:
            shown.append({"place": place, "text": text[:SHOWN], "detail": detail[:SHOWN]})

    def written(self, split: str, row: Row, settings: Settings) -> None:
        count = self.splits.setdefault(split, Counter())
        count["rows"] += 1
        if row.get("augmented"):
            count[f"augmented: {row['augmented']}"] += 1
        if settings.stratify:
            count[f"{settings.stratify} = {row.get(settings.stratify)}"] += 1
        words = num_words(prompt_text(row, settings.prompt_column) or "")
        label = next((f"up to {limit}" for limit in WORDS if words <= limit), f"above {WORDS[-1]}")
        self.lengths.setdefault(split, Counter())[label] += 1

    def in_words(self) -> str:
        return ", ".join(f"{reason} {number}" for reason, number in self.reasons.most_common()) or "the files are empty"

    def to_dict(self) -> dict[str, Any]:
        removed = {reason: self.reasons[reason] for reason in REASONS if self.reasons[reason]}
        found: dict[str, Any] = {
            "rows_read": self.num_read,
            "rows_changed_by_normalisation": self.num_changed,
            "rows_removed": sum(removed.values()),
            "removed": removed,
            "splits": {name: dict(counts) for name, counts in self.splits.items()},
            "words_of_prompts": {name: _in_order(counts) for name, counts in self.lengths.items()},
        }
        if self.ratings or self.unlabelled:
            kappa = fleiss_kappa(self.ratings)
            found["labels"] = {"fleiss_kappa": kappa, "rows": len(self.ratings), "incomplete": self.unlabelled}
        return found | {"examples": self.examples}


def _in_order(counts: Counter[str]) -> dict[str, int]:
    labels = [*(f"up to {limit}" for limit in WORDS), f"above {WORDS[-1]}"]
    return {label: counts[label] for label in labels if counts[label]}


def write_reports(settings: Settings, tally: Tally, command: str) -> dict[str, Any]:
    report = finite(tally.to_dict())
    write_atomically(settings.out / "report.json", json.dumps(report, indent=1) + "\n")
    write_atomically(settings.out / "report.md", as_markdown(report, command))
    outputs = sorted(path for path in settings.out.iterdir() if path.suffix in (".jsonl", ".json", ".md"))
    given = {**dataclasses.asdict(settings), "out": str(settings.out)}
    del given["processes"]
    sources = [Path(name).expanduser() for name in (*settings.sources, *settings.test_sets)]
    hashes = {str(path): sha256(path) for path in sources if path.is_file()}
    manifest = {"settings": given, "inputs": hashes, "outputs": {path.name: sha256(path) for path in outputs}}
    write_atomically(settings.out / "manifest.json", json.dumps(manifest, indent=1, default=list) + "\n")
    return report


def as_markdown(report: dict[str, Any], command: str) -> str:
    kept = report["rows_read"] - report["rows_removed"]
    lines = ["# Prepared data", "", f"`{command}`", ""] if command else ["# Prepared data", ""]
    lines += [f"{report['rows_read']} rows read, {report['rows_removed']} removed, {kept} kept.", ""]
    lines += [f"Normalisation changed {report['rows_changed_by_normalisation']} of them.", ""]
    if "labels" in report:
        labels = report["labels"]
        kappa = "not defined" if labels["fleiss_kappa"] is None else f"{labels['fleiss_kappa']:.3f}"
        lines += [f"Fleiss' kappa of {labels['rows']} labelled rows: {kappa}; {labels['incomplete']} incomplete.", ""]
    lines += ["| split | rows | of which |", "|---|---|---|"]
    for name, counts in report["splits"].items():
        rest = ", ".join(f"{key}: {number}" for key, number in counts.items() if key != "rows")
        lines.append(f"| {name} | {counts['rows']} | {rest} |")
    lines += ["", "| removed | rows | why |", "|---|---|---|"]
    lines += [f"| {reason} | {n} | {REASONS[reason]} |" for reason, n in report["removed"].items()]
    for reason, examples in report["examples"].items():
        lines += ["", f"## {reason}", ""]
        for one in examples:
            detail = f" ({_inline(one['detail'])})" if one["detail"] else ""
            lines.append(f"- {one['place']}: `{_inline(one['text'])}`{detail}")
    return "\n".join(lines) + "\n"


def _inline(text: str) -> str:
    return " ".join(text.replace("`", "'").replace("|", "/").split())
