"""The problems of all rounds, parted once; and the pool that the errors of a round make for the next.

Test problems are in no part: rows that share an n-gram with one are left out before anything is drawn.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.sources import read_rows
from ..data_preparation.examine import HeldGrams
from ..data_preparation.files import line_of
from ..data_preparation.texts import Row, prompt_text
from ..errors import UserError
from ..files import read_jsonl, write_atomically
from .known import KnownProblems
from .mine import Limits, mine, summary
from .sources import Answer, answers_in

PARTS = ("train", "mining", "validation")
MAX_VALIDATION, VALIDATION_SHARE = 200, 0.05
"""As for a run that is given no validation problems (data/loading.py), but the same in every round."""


@dataclass(frozen=True)
class Parts:
    """Files of the problems: those trained on, those asked after every round, and the held-out test's texts."""

    folder: Path
    column: str | None
    test: HeldGrams

    def path(self, part: str) -> Path:
        return self.folder / f"{part}.jsonl"

    def known(self) -> KnownProblems:
        """What errors can be about, with trusted gold: the training part and the mining part."""
        return KnownProblems([row for part in ("train", "mining") for row in read_jsonl(self.path(part))], self.column)


def parted(
    folder: Path, problems: Sequence[str], test: Any, config_name: str | None, options: Any, seed: int, column: str
) -> Parts:
    """The parts, written where they are not there yet. UserError where too little is left."""
    rows = [row.columns for row in read_rows(problems, "problems", config_name)]
    wanted = column if any(column in row for row in rows) else None
    held = [
        prompt_text(row.columns, column) or prompt_text(row.columns) for row in read_rows(test, "test", config_name)
    ]
    parts = Parts(folder, wanted, HeldGrams.of([text for text in held if text], options.ngram))
    if not all(parts.path(name).is_file() for name in (*PARTS, "left_out")):
        _write(parts, rows, options.mining_share, seed)
    return parts


def _write(parts: Parts, rows: Sequence[Row], mining_share: float, seed: int) -> None:
    kept, left_out = [], []
    for number, row in enumerate(rows):
        text = prompt_text(row, parts.column)
        shared = parts.test.shared_with(text) if text else None
        if text and shared is None:
            kept.append(row)
        else:
            left_out.append({"row": number, "reason": "contaminated" if text else "no_prompt", "detail": shared})
    if len(kept) < 10:
        raise UserError(
            f"--problems: {len(kept)} of {len(rows)} rows have a prompt and share no n-gram (--ngram) with data.test; "
            "rounds need 10 at least"
        )
    random.Random(f"{seed}:rounds").shuffle(kept)
    held = max(1, min(MAX_VALIDATION, round(len(kept) * VALIDATION_SHARE)))
    asked = max(1, round(len(kept) * mining_share))
    found = {"validation": kept[:held], "mining": kept[held : held + asked], "train": kept[held + asked :]}
    parts.folder.mkdir(parents=True, exist_ok=True)
    for name, own in {**found, "left_out": left_out}.items():
        write_atomically(parts.path(name), "".join(map(line_of, own)))
    print(f"problems: {', '.join(f'{name} {len(own)}' for name, own in found.items())}; left out {len(left_out)}")


def asked_in(parts: Parts, out: Path, number: int, size: int, seed: int) -> Path:
    """The problems of the mining part that are asked after round `number`, another draw for each where it has more."""
    rows = read_jsonl(parts.path("mining"))
    chosen = random.Random(f"{seed}:mining:{number}").sample(rows, min(size, len(rows)))
    write_atomically(out, "".join(map(line_of, chosen)))
    return out


def rollouts_of(folder: Path) -> list[Answer]:
    """Of the later half of a run's logged steps: the student of the earlier half is not the one that goes on."""
    files = sorted((folder / "completions").glob("completions_*.parquet"))
    return [answer for file in files[len(files) // 2 :] for answer in answers_in(file)]


def make_pool(
    parts: Parts, answers: Sequence[Answer], out: Path, options: Any, seed: int, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """Writes the pool last, so that it is there only where its report is; what `summary` says of it."""
    mined = mine(
        answers,
        parts.known(),
        parts.test,
        Limits(options.per_user, options.feedback_share, options.size),
        augment=options.augment,
        seed=seed,
        column=parts.column,
    )
    found = summary(mined)
    write_atomically(out.with_suffix(".rejected.jsonl"), "".join(map(line_of, mined.rejected)))
    write_atomically(out.with_suffix(".report.json"), json.dumps(found, indent=1) + "\n")
    write_atomically(out, "".join(map(line_of, mined.pool)))
    report(f"{out}: {found['pool_rows']} rows from {len(answers)} answers")
    return found
