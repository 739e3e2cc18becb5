"""TriviaQA without context (Joshi et al. 2017): exact match and F1 over all aliases, normalised as the official script.

Protocols: `chat`, `0-shot` and `5-shot` (exemplars written for this project). `triviaqa_match` is the same grader as a
reward function: name it in a run as `rl_distill.tasks.triviaqa:triviaqa_match`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Any

from reward_models.base import text_of

from ..types import Problem
from .base import Graded, Task, TaskOptions, final_text
from .data import Row, rows_of
from .text_metrics import bag_f1

HUB = ("mandarjoshi/trivia_qa", "rc.nocontext")
PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`", " "))
ARTICLES = re.compile(r"\b(?:a|an|the)\b")
CHAT = "Answer with the name or a few words only, without a sentence.\n\n{question}"
SHOTS = (
    ("Which metal is liquid at room temperature?", "Mercury"),
    ("How many players of one team are on a football pitch at kick-off?", "Eleven"),
    ("Who painted the ceiling of the Sistine Chapel?", "Michelangelo"),
    ("Which river flows through Vienna and Budapest?", "Danube"),
    ("In which year did the Second World War end?", "1945"),
)


def triviaqa(options: TaskOptions) -> Task:
    """TriviaQA without context; metrics `exact_match` and `f1`, each the best over the aliases."""
    protocol = options.choose("5-shot", ["chat", "0-shot", "5-shot"])
    return Task(
        name="triviaqa",
        problems=lambda: problems(options, protocol),
        grade=grade,
        metrics=("exact_match", "f1"),
        protocol=protocol,
        stops=() if protocol == "chat" else ("\n",),
        max_new_tokens=512 if protocol == "chat" else 32,
        extraction="the first line after </think>",
    )


def problems(options: TaskOptions, protocol: str) -> list[Problem]:
    """Every row of the validation split: the test split's answers are not public."""
    shots = "".join(f"Question: {q}\nAnswer: {a}\n\n" for q, a in SHOTS) if protocol == "5-shot" else ""
    found = []
    for row in rows_of("triviaqa", "validation", options.data_path, *HUB):
        question, key, value, aliases = fields_of(row)
        prompt = CHAT.format(question=question) if protocol == "chat" else f"{shots}Question: {question}\nAnswer:"
        found.append(Problem("triviaqa", key, prompt, value, {"question": question, "aliases": aliases}))
    return found


def fields_of(row: Row) -> tuple[str, str, str, list[str]]:
    """(question, id, answer, normalised aliases) of a row as the hub has it, or as the official JSON files do."""
    if "Answer" in row:
        answer = row["Answer"]
        human = [normalize(text) for text in answer.get("HumanAnswers", [])]
        return row["Question"], row["QuestionId"], answer["Value"], [*answer["NormalizedAliases"], *human]
    answer = row["answer"]
    return row["question"], row["question_id"], answer["value"], list(answer["normalized_aliases"])


def normalize(text: str) -> str:
    """Lower case, `_` and punctuation as spaces, no articles, single spaces: the official normalisation."""
    text = text.replace("_", " ").lower().translate(PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", text).split())


def answer_line(text: str) -> str:
    """The first line with something on it, after any reasoning."""
    return next((line.strip() for line in final_text(text).splitlines() if line.strip()), "")


def exact_match(prediction: str, aliases: Sequence[str]) -> float:
    """1 if the normalised prediction is an alias; an alias is normalised too, as in the official script."""
    return float(any(normalize(prediction) == normalize(alias) for alias in aliases))


def f1(prediction: str, aliases: Sequence[str]) -> float:
    """The best token F1 over the aliases."""
    return max((bag_f1(normalize(prediction).split(), normalize(alias).split()) for alias in aliases), default=0.0)


def grade(problems: Sequence[Problem], texts: Sequence[str]) -> list[Graded]:
    graded = []
    for problem, text in zip(problems, texts, strict=True):
        answer, aliases = answer_line(text), problem.columns["aliases"]
        graded.append(Graded({"exact_match": exact_match(answer, aliases), "f1": f1(answer, aliases)}, answer))
    return graded


def triviaqa_match(*, completions: list, aliases: list[list[str] | None], **columns: Any) -> list[float | None]:
    """Reward: 1 if the first line of the completion is one of the aliases, else 0; None where there are none."""
    return [
        None if names is None else exact_match(answer_line(text_of(completion)), names)
        for completion, names in zip(completions, aliases, strict=True)
    ]
