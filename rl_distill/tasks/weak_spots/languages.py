"""MGSM (Shi et al. 2022) and files like it: grade-school problems in several languages, with numbers as answers.

Data: a folder with a file per language, `mgsm_de.tsv` (question, tab, number) or `de.jsonl`, or files with a column
`language`. Accuracy is told by language as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reward_models.math_answers import extract_answer

from ...types import Problem
from ..base import Graded, Task, TaskError, TaskOptions, check_answers
from ..data import SUFFIXES, read_rows

PROMPTS = {
    "chat": "{question}\n\nPut your final answer, a number, within \\boxed{{}}.",
    "base": "Question: {question}\nAnswer:",
}


def mgsm(options: TaskOptions) -> Task:
    """The task; metric `accuracy`, and one for each language."""
    protocol = options.choose("base", list(PROMPTS))
    return Task(
        name="mgsm",
        problems=lambda: problems(options.data_path, protocol),
        grade=grade,
        protocol=protocol,
        stops=("\nQuestion:",) if protocol == "base" else (),
        max_new_tokens=1024,
        extraction="the last box after </think>, else a marked answer, else the last number",
    )


def problems(data_path: str | None, protocol: str) -> list[Problem]:
    """Of every file, in the order of their names. TaskError where there is no file, or a row lacks what it needs."""
    if data_path is None:
        raise TaskError("mgsm needs your copy: --data_path mgsm=FOLDER with mgsm_de.tsv, mgsm_zh.tsv ...")
    place = Path(data_path).expanduser()
    files = [place] if place.is_file() else sorted(f for f in place.glob("*") if f.name.endswith((*SUFFIXES, ".tsv")))
    found = [_problem(file, index, row, protocol) for file in files for index, row in enumerate(_rows(file))]
    if not found:
        raise TaskError(f"mgsm: no rows in {place}; expected files such as mgsm_de.tsv or de.jsonl")
    return found


def _rows(file: Path) -> list[dict[str, Any]]:
    if not file.name.endswith(".tsv"):
        return read_rows(file)
    lines = [line.split("\t") for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    short = next((number for number, cells in enumerate(lines, 1) if len(cells) < 2), None)
    if short is not None:
        raise TaskError(f"{file} line {short}: no tab between question and answer")
    return [{"question": cells[0], "answer_number": cells[1]} for cells in lines]


def _problem(file: Path, index: int, row: dict[str, Any], protocol: str) -> Problem:
    answer = row.get("answer_number", row.get("answer"))
    if not row.get("question") or answer is None:
        raise TaskError(f"{file} row {index} lacks question or answer_number; it has {', '.join(row)}")
    language = str(row.get("language") or file.name.partition(".")[0].rpartition("_")[2])
    number = str(answer).rpartition("####")[2].strip().replace(",", "")
    columns = {"question": row["question"], "answer": number, "language": language}
    prompt = PROMPTS[protocol].format(question=row["question"])
    return Problem("mgsm", f"mgsm/{language}/{index}", prompt, number, columns)


def grade(problems: Sequence[Problem], texts: Sequence[str], finished: Sequence[bool] | None = None) -> list[Graded]:
    scores = check_answers(problems, texts, finished)
    return [Graded({"accuracy": score}, extract_answer(text)) for score, text in zip(scores, texts, strict=True)]
