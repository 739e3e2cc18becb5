"""Whether a row's gold answer is one that training can grade: the graders of training are asked, nothing else.

It may assume rows that met the rules. Programs run in the sandbox only. Trouble of the sandbox is no verdict.
"""

from __future__ import annotations

from collections.abc import Sequence

from reward_models.math_gold import unparsed_golds

from ..errors import UserError
from ..tasks.base import check_answers
from ..types import Problem
from .texts import PROGRAMS, Row, gold_of, prompt_text, tests_of

CODE_PROMPT = "prompt"


def gold_faults(rows: Sequence[Row], column: str | None = None) -> list[str | None]:
    """By row: `gold_unreadable`, `gold_fails` (graded against itself, or its program fails its tests), or None.

    UserError where the sandbox could not run the programs at all: that is no fault of the rows.
    """
    faults: list[str | None] = [None] * len(rows)
    golds = [None if tests_of(row) else gold_of(row) for row in rows]
    for index in unparsed_golds(golds):
        faults[index] = "gold_unreadable"
    answers = [program_of(row) or gold for row, gold in zip(rows, golds, strict=True)]
    asked = [i for i, answer in enumerate(answers) if answer is not None and faults[i] is None]
    problems = [Problem("", str(i), prompt_text(rows[i], column) or "", columns=dict(rows[i])) for i in asked]
    verdicts = check_answers(problems, [str(answers[i]) for i in asked]) if asked else []
    for index, verdict in zip(asked, verdicts, strict=True):
        if verdict is None and tests_of(rows[index]):
            raise UserError("the sandbox could not run a row's own program; see `rl-distill check-sandbox`")
        faults[index] = "gold_fails" if verdict is None or verdict < 1 else None
    return faults


def program_of(row: Row) -> str | None:
    """The program that the row gives as its solution, in a fence as a model would; None where it gives none."""
    if tests_of(row) is None:
        return None
    code = next((row[name] for name in PROGRAMS if isinstance(row.get(name), str) and row[name].strip()), None)
    if code is None:
        return None
    head = row.get(CODE_PROMPT) if f"def {row.get('entry_point')}" not in code else ""
    return f"```python\n{head or ''}{code}\n```"
