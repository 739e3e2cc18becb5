"""Your own data as a task, without code: rows with `prompt` and `answer` (free text), or `prompt` and `label`.

Data comes from --data_path NAME=FILE. Free text: BLEU-4, ROUGE-L, exact match, F1. Classes: accuracy, macro-F1 and,
for two labels, AUC of the difference of their log-probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..types import Problem
from . import text_metrics
from .base import Graded, Task, TaskError, TaskOptions, final_text
from .data import Row, rows_of


def free_text(options: TaskOptions) -> Task:
    """Texts against one or several reference answers; the headline is ROUGE-L, corpus BLEU-4 is added."""
    return Task(
        name="free_text",
        problems=lambda: [_problem("free_text", i, row, "answer") for i, row in enumerate(_rows("free_text", options))],
        grade=_grade_text,
        metrics=("rouge_l", "exact_match", "f1"),
        protocol=options.choose("base", ["base", "chat"]),
        extraction="the text after </think>",
        corpus=lambda problems, records: {
            "bleu4": text_metrics.corpus_bleu(
                [final_text(record["completion"]) for record in records], [references(p) for p in problems]
            )
        },
    )


def classification(options: TaskOptions) -> Task:
    """One label per text: the first of the labels that the completion names."""
    rows = _rows("classification", options)
    labels = sorted({str(row.get("label")) for row in rows})

    def grade(problems: Sequence[Problem], texts: Sequence[str]) -> list[Graded]:
        found = [text_metrics.first_label(final_text(text), labels) for text in texts]
        return [
            Graded({"accuracy": float(label == problem.solution)}, label)
            for label, problem in zip(found, problems, strict=True)
        ]

    def corpus(problems: Sequence[Problem], records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        gold = [problem.solution for problem in problems]
        metrics = {"macro_f1": text_metrics.macro_f1([record["extracted"] for record in records], gold)}
        if len(labels) == 2:
            scores = [record["choices"][labels[1]] - record["choices"][labels[0]] for record in records]
            metrics["auc"] = text_metrics.auc(scores, [label == labels[1] for label in gold])
        return metrics

    return Task(
        name="classification",
        problems=lambda: [_problem("classification", i, row, "label") for i, row in enumerate(rows)],
        grade=grade,
        protocol=options.choose("base", ["base", "chat"]),
        max_new_tokens=32,
        extraction=f"the first of the labels {', '.join(labels)} in the text after </think>",
        choices=tuple(labels),
        corpus=corpus,
    )


def references(problem: Problem) -> list[str]:
    answer = problem.columns["answer"]
    return [str(text) for text in answer] if isinstance(answer, list) else [str(answer)]


def _grade_text(problems: Sequence[Problem], texts: Sequence[str]) -> list[Graded]:
    graded = []
    for problem, text in zip(problems, texts, strict=True):
        text, golds = final_text(text).strip(), references(problem)
        scores = {
            "rouge_l": text_metrics.rouge_l(text, golds),
            "exact_match": text_metrics.exact_match(text, golds),
            "f1": text_metrics.f1(text, golds),
        }
        graded.append(Graded(scores, text))
    return graded


def _rows(name: str, options: TaskOptions) -> list[Row]:
    if options.data_path is None:
        raise TaskError(f"{name} needs your data: --data_path {name}=FILE with rows of prompt and answer (or label)")
    return rows_of(name, "test", options.data_path, "your/dataset")


def _problem(name: str, index: int, row: Row, gold: str) -> Problem:
    if "prompt" not in row or row.get(gold) is None:
        raise TaskError(f"{name}: row {index} lacks prompt or {gold}; it has {', '.join(row)}")
    answer = row[gold]
    first = answer[0] if isinstance(answer, list) else answer
    return Problem(name, f"{name}/{index}", row["prompt"], str(first), {gold: answer})
