"""GSM8K (Cobbe et al. 2021): all 1,319 test problems, answers compared by value with training's grader.

Protocols: `chat` (zero-shot, final answer asked for in a box), `5-shot` (Question/Answer, `#### N`), `8-shot` (Q/A,
`The answer is N.`). Exemplars are the first rows of the train split. It will not look at the reasoning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from reward_models.base import numbers_or_none
from reward_models.math_answers import extract_answer, math_answer

from ..types import Problem
from .base import Graded, Task, TaskError, TaskOptions, check_answers, final_text
from .data import Row, has_split, rows_of

HUB = ("openai/gsm8k", "main")
CALCULATION = re.compile(r"<<[^>]*>>")
CHAT = "{question}\nPlease reason step by step, and put your final answer within \\boxed{{}}."
# What marks an answer in each protocol; an answer without the mark is not right under `strict`.
MARKS = {
    "chat": re.compile(r"\\boxed|####"),
    "5-shot": re.compile("####"),
    "8-shot": re.compile("answer is", re.IGNORECASE),
}
STOPS = {"chat": (), "5-shot": ("Question:",), "8-shot": ("Q:",)}


def gsm8k(options: TaskOptions) -> Task:
    """GSM8K; metrics `flexible` (as rewarded in training) and `strict` (only an answer marked as one)."""
    protocol = options.choose("5-shot", list(MARKS))
    return Task(
        name="gsm8k",
        problems=lambda: problems(options, protocol),
        grade=grader(protocol),
        gold=lambda problem: gold_text(problem.solution, protocol),
        metrics=("flexible", "strict"),
        protocol=protocol,
        stops=STOPS[protocol],
        max_new_tokens=1024 if protocol == "chat" else 512,
        extraction="flexible: marked answer, else the last number; strict: "
        + {"chat": "\\boxed{} or ####", "5-shot": "####", "8-shot": "The answer is"}[protocol],
    )


def problems(options: TaskOptions, protocol: str) -> list[Problem]:
    """Every row of the test split as a problem, its few-shot prompt included."""
    exemplars = ""
    if protocol != "chat":
        if not has_split("train", options.data_path):
            raise TaskError(
                f"gsm8k {protocol} takes its exemplars from the train split: give a folder with train.jsonl and "
                "test.jsonl as --data_path, or use --protocol chat"
            )
        shots = rows_of("gsm8k", "train", options.data_path, *HUB)[: int(protocol[0])]
        exemplars = "".join(
            f"{show(row['question'], protocol)} {gold_text(row['answer'], protocol)}\n\n" for row in shots
        )
    return [
        to_problem(index, row, exemplars + show(row["question"], protocol))
        for index, row in enumerate(rows_of("gsm8k", "test", options.data_path, *HUB))
    ]


def to_problem(index: int, row: Row, prompt: str) -> Problem:
    final = row["answer"].rpartition("####")[2].strip()
    return Problem("gsm8k", f"gsm8k/{index}", prompt, row["answer"], {"question": row["question"], "answer": final})


def show(question: str, protocol: str) -> str:
    if protocol == "chat":
        return CHAT.format(question=question)
    return f"Question: {question}\nAnswer:" if protocol == "5-shot" else f"Q: {question}\nA:"


def gold_text(answer: str, protocol: str) -> str:
    """A reference solution in the form that the protocol asks for; calculator marks `<<2*3=6>>` are left out."""
    reasoning, _, final = CALCULATION.sub("", answer).rpartition("####")
    ending = {"chat": "\\boxed{%s}", "5-shot": "#### %s", "8-shot": "The answer is %s."}[protocol] % final.strip()
    return reasoning.strip() + ("\n" if protocol == "5-shot" else " ") + ending


def grader(protocol: str) -> Callable[..., list[Graded]]:
    def grade(
        problems: Sequence[Problem], texts: Sequence[str], finished: Sequence[bool] | None = None
    ) -> list[Graded]:
        golds = [problem.columns["answer"] for problem in problems]
        flexible = check_answers(problems, texts, finished)
        marked = [MARKS[protocol].search(final_text(text)) is not None for text in texts]
        ended: list[bool | None] = [True] * len(texts) if finished is None else list(finished)
        strict = numbers_or_none(math_answer(completions=list(texts), answer=golds, finished=ended, mode="strict"))
        return [
            Graded({"flexible": f, "strict": s if mark else 0.0}, extract_answer(text))
            for f, s, mark, text in zip(flexible, strict, marked, texts, strict=True)
        ]

    return grade
