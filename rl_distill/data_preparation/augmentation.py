"""More training rows from those there are, by rules that leave no doubt about the answer.

`renamed` keeps the answer; `numbers` computes it anew and is graded against itself like any gold answer. A row that no
rule fits gives none. Splits other than `train` are never augmented.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..tasks.robustness.recompute import changed_number
from ..tasks.robustness.rewriting import MEN, WOMEN, replaced
from .gold import gold_faults
from .texts import Row, gold_of, prompt_column, tests_of


def augmented(row: Row, kind: str, seed: int, column: str | None = None) -> Row | None:
    """The new row with `augmented` naming its kind; None where the rule does not fit."""
    name = prompt_column(row, column)
    answer = gold_of(row)
    if name is None or not isinstance(row[name], str) or answer is None or tests_of(row) is not None:
        return None
    draw = random.Random(f"{seed}:{kind}:{row[name]}")
    made = _renamed(row, name, draw) if kind == "renamed" else _with_numbers(row, name, answer, draw)
    if made is None or kind == "renamed":  # whose answer was checked before
        return made
    return None if gold_faults([made], column)[0] else made


def _renamed(row: Row, name: str, draw: random.Random) -> Row | None:
    """Names in prompt and worked solution alike; not where a name is (in) the final answer."""
    final = str(row["answer"]).rpartition("####")[2]
    mapping = new_names(row[name], f"{row[name]} {row['answer']}", draw)
    if not mapping or replaced(final, mapping) != final:
        return None
    texts = {key: replaced(row[key], mapping) for key in (name, "answer") if isinstance(row[key], str)}
    return row | texts | {"augmented": "renamed"}


def new_names(text: str, avoid: str, draw: random.Random) -> dict[str, str]:
    """First names of the text -> names of the same gender that `avoid` does not contain."""
    mapping: dict[str, str] = {}
    for names in (WOMEN, MEN):
        present = [name for name in names if replaced(text, {name: ""}) != text]
        mapping |= dict(zip(present, draw.sample([n for n in names if n not in avoid], len(present)), strict=True))
    return mapping


def _with_numbers(row: Row, name: str, answer: str, draw: random.Random) -> Row | None:
    found = changed_number(row[name], answer, draw)
    if found is None:
        return None
    solution = "\n".join([*found.steps, f"#### {found.answer}"])
    return row | {name: found.question, "answer": solution, "augmented": "numbers"}


def all_augmented(row: Row, kinds: Sequence[str], seed: int, column: str | None = None) -> list[Row]:
    made = [augmented(row, kind, seed, column) for kind in kinds]
    return [new for new in made if new is not None]
