"""More training rows from those there are, by rules that leave no doubt about the answer.

`renamed` keeps the answer; `numbers` computes it anew and is graded against itself like any gold answer. A row that no
rule fits gives none. Splits other than `train` are never augmented.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reward_models.registry import resolve

from ..errors import UserError
from ..tasks.base import check_answers
from ..tasks.robustness.recompute import changed_number
from ..tasks.robustness.rewriting import MEN, WOMEN, replaced
from ..types import Problem
from .duplicates.critical import tokens
from .gold import gold_faults
from .texts import Row, gold_of, prompt_column, prompt_text, tests_of

Writer = Callable[[Sequence[str]], Sequence[str]]
"""Texts -> one text for each: paraphrases, translations, texts with synonyms, or solutions."""


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


@dataclass(frozen=True)
class Rewritten:
    """New rows, how many texts were refused as they stand, and how many of the others were not solved."""

    rows: list[Row]
    refused: int
    unsolved: int


def rewritten(
    rows: Sequence[Row],
    write: Writer,
    solve: Writer,
    kind: str,
    column: str | None = None,
    allowed: Callable[[str], bool] = lambda text: True,
) -> Rewritten:
    """The rows as somebody writes them anew. A text stays where it is another than before, has the same numbers,
    is `allowed`, and where what `solve` answers to it is graded right by the row's gold."""
    texts = [prompt_text(row, column) or "" for row in rows]
    written = list(write(texts)) if texts else []
    made = []
    for row, old, new in zip(rows, texts, written, strict=True):
        name, text = prompt_column(row, column), new.strip()
        fits = text != old and _numbers(text) == _numbers(old) and allowed(text)
        if name is not None and fits and isinstance(row[name], str) and gold_of(row) is not None:
            made.append(row | {name: text, "augmented": kind})
    solutions = list(solve([prompt_text(row, column) or "" for row in made])) if made else []
    problems = [Problem("", str(i), prompt_text(row, column) or "", columns=dict(row)) for i, row in enumerate(made)]
    verdicts = check_answers(problems, solutions) if made else []
    right = [row for row, verdict in zip(made, verdicts, strict=True) if verdict == 1]
    return Rewritten(right, len(rows) - len(made), len(made) - len(right))


def writers_of(path: str) -> tuple[Writer, dict[str, Writer]]:
    """(`solve`, writers by the kind of row they make) of a Python file. UserError where it lacks them."""
    found: dict[str, Writer] = {}
    for name in ("solve", "paraphrase", "translate", "translate_back", "synonyms"):
        try:
            found[name] = resolve(f"{path}:{name}")
        except ValueError as error:
            if name == "solve" or not Path(path).is_file():
                raise UserError(f"--writers {path}: {str(error).replace('reward ', '')}") from error
    there, back = found.pop("translate", None), found.pop("translate_back", None)
    if (there is None) != (back is None):
        raise UserError(f"--writers {path}: translate and translate_back belong together; one of them is missing")
    if there is not None and back is not None:
        found["back_translation"] = lambda texts: back(there(texts))
    solve = found.pop("solve")
    if not found:
        raise UserError(f"--writers {path}: neither paraphrase, translate and translate_back, nor synonyms is there")
    return solve, found


def _numbers(text: str) -> Counter[str]:
    return Counter(token for token in tokens(text) if token[0].isdigit())
