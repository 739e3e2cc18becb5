"""From answers to a pool: matched with known problems, graded, capped, decontaminated, extended.

What enters the pool is a known problem with its trusted gold answer, or a row made from one by a rule. No text of a
user enters it: feedback can only point at a problem, and only where the grader agrees that its answer is wrong.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..data_preparation.augmentation import Writer, all_augmented, rewritten
from ..data_preparation.examine import HeldGrams
from ..data_preparation.texts import Row, prompt_text
from ..tasks.base import check_answers
from ..types import Problem
from .known import KnownProblems
from .sources import FEEDBACK, Answer


@dataclass(frozen=True)
class Limits:
    """`per_user`: problems that one user's feedback may bring. `feedback_share`: part of the pool that feedback alone
    may bring. `size`: most problems of the pool, those failed most often first."""

    per_user: int = 5
    feedback_share: float = 0.25
    size: int = 1000


@dataclass
class Mined:
    """The pool, and every answer that did not lead into it with its reason."""

    pool: list[Row] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def reject(self, answer: Answer, reason: str) -> None:
        self.counts[reason] += 1
        place = {"reason": reason, "place": answer.place, "origin": answer.origin}
        self.rejected.append(place | {"prompt": answer.prompt, "answer": answer.text})


def mine(
    answers: Sequence[Answer],
    known: KnownProblems,
    tests: HeldGrams,
    limits: Limits,
    *,
    augment: Sequence[str] = (),
    paraphrase: Writer | None = None,
    solve: Writer | None = None,
    seed: int = 0,
    column: str | None = None,
) -> Mined:
    """Reasons: unknown_problem, contaminated, not_graded, right, false_correction (told beside `wrong`), over_user_cap,
    over_feedback_cap, over_size. The same inputs give the same pool."""
    mined = Mined()
    failures = _failures(answers, known, tests, mined, column)
    chosen = _capped(failures, limits, mined, seed)
    for index, wrong in chosen:
        row = known.rows[index]
        origins = sorted({answer.origin for answer in wrong})
        mined.pool.append(row | {"mined": {"wrong_answers": len(wrong), "origins": origins}})
        made = all_augmented(row, augment, seed, column)
        mined.pool += [new for new in made if tests.shared_with(prompt_text(new, column) or "") is None]
    if paraphrase is not None and solve is not None:
        rows = [known.rows[index] for index, _ in chosen]
        mined.pool += paraphrased(rows, paraphrase, solve, tests, mined.counts, column)
    return mined


def _failures(
    answers: Sequence[Answer], known: KnownProblems, tests: HeldGrams, mined: Mined, column: str | None
) -> dict[int, list[Answer]]:
    """Known problem -> the answers to it that the graders call wrong."""
    matched = []
    for answer in answers:
        index = known.alone(answer.prompt) if answer.origin == FEEDBACK else known.inside(answer.prompt)
        if index is None:
            mined.reject(answer, "unknown_problem")
        elif tests.shared_with(prompt_text(known.rows[index], column) or ""):
            mined.reject(answer, "contaminated")
        else:
            matched.append((index, answer))
    verdicts = _graded(known, [(index, answer.text) for index, answer in matched], column)
    corrections = [(index, answer.correction) for index, answer in matched if answer.correction is not None]
    false = [verdict for verdict in _graded(known, corrections, column) if verdict == 0]
    mined.counts["false_correction"] += len(false)
    failures: dict[int, list[Answer]] = {}
    for (index, answer), verdict in zip(matched, verdicts, strict=True):
        if verdict is None:
            mined.reject(answer, "not_graded")
        elif verdict >= 1:
            mined.reject(answer, "right")
        else:
            failures.setdefault(index, []).append(answer)
            mined.counts["wrong"] += 1
    return failures


def _graded(known: KnownProblems, pairs: Sequence[tuple[int, str]], column: str | None) -> list[float | None]:
    problems = [
        Problem("", str(index), prompt_text(known.rows[index], column) or "", columns=dict(known.rows[index]))
        for index, _ in pairs
    ]
    return check_answers(problems, [text for _, text in pairs]) if pairs else []


def _capped(
    failures: dict[int, list[Answer]], limits: Limits, mined: Mined, seed: int
) -> list[tuple[int, list[Answer]]]:
    """Problems that the caps leave, those failed most often first; ties and users' choices by chance of the seed."""
    draw = random.Random(f"{seed}:mine")
    order = sorted(failures)
    draw.shuffle(order)
    trusted = [index for index in order if any(answer.origin != FEEDBACK for answer in failures[index])]
    told = [index for index in order if index not in set(trusted)]
    told = _within_users(told, failures, limits.per_user, mined)
    share = limits.feedback_share
    most = len(told) if share >= 1 or not trusted else int(len(trusted) * share / (1 - share))
    told.sort(key=lambda index: -len({answer.user for answer in failures[index]}))
    _reject_all(told[most:], failures, "over_feedback_cap", mined)
    chosen = sorted([*trusted, *told[:most]], key=lambda index: -_weight(failures[index]))
    _reject_all(chosen[limits.size :], failures, "over_size", mined)
    return [(index, failures[index]) for index in chosen[: limits.size]]


def _weight(answers: Sequence[Answer]) -> int:
    """Wrong answers; those of one user count once."""
    own = [answer for answer in answers if answer.origin != FEEDBACK]
    return len(own) + len({answer.user for answer in answers if answer.origin == FEEDBACK})


def _within_users(order: Sequence[int], failures: dict[int, list[Answer]], most: int, mined: Mined) -> list[int]:
    """Problems that some user under the cap has brought; each is charged to one user."""
    used: Counter[str] = Counter()
    kept = []
    for index in order:
        free = [answer.user for answer in failures[index] if used[answer.user] < most]
        if free:
            used[min(free, key=lambda user: (used[user], user))] += 1
            kept.append(index)
        else:
            _reject_all([index], failures, "over_user_cap", mined)
    return kept


def _reject_all(indices: Sequence[int], failures: dict[int, list[Answer]], reason: str, mined: Mined) -> None:
    for index in indices:
        for answer in failures[index]:
            mined.reject(answer, reason)


def paraphrased(
    rows: Sequence[Row],
    paraphrase: Writer,
    solve: Writer,
    tests: HeldGrams,
    counts: Counter[str],
    column: str | None = None,
) -> list[Row]:
    """The rows in other words, where every number is still there and the teacher's solution is right."""
    made = rewritten(rows, paraphrase, solve, "paraphrase", column, lambda text: tests.shared_with(text) is None)
    counts["paraphrase_refused"] += made.refused
    counts["paraphrase_unsolved"] += made.unsolved
    return made.rows


def summary(mined: Mined) -> dict[str, Any]:
    """Counts by reason and the rows of the pool by kind."""
    kinds = Counter(str(row.get("augmented", "failed")) for row in mined.pool)
    return {"answers": dict(mined.counts), "pool": dict(kinds), "pool_rows": len(mined.pool)}
