"""Synthetic prompts of about 1,000, 4,000 or 8,000 tokens: one fact to find in them, or a chain of facts to follow.

After the needle test and multi-hop tracing (Hsieh et al. 2024, "RULER"), with checkable numbers. The same problems on
every machine. Lengths are meant for tokenizers with about four characters of English in a token.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from reward_models.math_answers import extract_answer

from ...types import Problem
from ..base import Graded, Task, TaskOptions, check_answers

NUM_PROBLEMS, CHARACTERS_PER_TOKEN = 60, 4
NAMES = ("Ada", "Boris", "Chen", "Dora", "Emil", "Fatima", "Goran", "Hana", "Igor", "Jana", "Kofi", "Lena")
THINGS = ("The wind", "A train", "The old clock", "A gardener", "The river", "Some birds", "The baker", "A child")
DEEDS = ("passed", "rested near", "was seen at", "turned towards", "left", "came back to", "moved past", "stopped at")
PLACES = ("the mill", "the harbour", "the market", "the bridge", "the school", "the tower", "the lake", "the station")
HOPS = {"needle": 1, "two_steps": 2, "three_steps": 3}
"""Facts that lead to the answer, by kind; the kinds take turns."""
PROMPTS = {
    "chat": "{text}\n\n{question} Put the number within \\boxed{{}}.",
    "base": "{text}\n\nQuestion: {question}\nAnswer: The number is",
}


def needle_1k(options: TaskOptions) -> Task:
    """The task at about 1,000 tokens; metric `accuracy`."""
    return _task("needle_1k", 1000, options)


def needle_4k(options: TaskOptions) -> Task:
    """The task at about 4,000 tokens; metric `accuracy`."""
    return _task("needle_4k", 4000, options)


def needle_8k(options: TaskOptions) -> Task:
    """The task at about 8,000 tokens; metric `accuracy`."""
    return _task("needle_8k", 8000, options)


def _task(name: str, tokens: int, options: TaskOptions) -> Task:
    protocol = options.choose("base", list(PROMPTS))
    return Task(
        name=name,
        problems=lambda: [make_problem(name, number, tokens, protocol) for number in range(NUM_PROBLEMS)],
        grade=grade,
        protocol=protocol,
        stops=("\n",) if protocol == "base" else (),
        max_new_tokens=512 if protocol == "chat" else 16,
        extraction="the last box, else a marked answer, else the last number",
    )


def make_problem(name: str, number: int, tokens: int, protocol: str = "base") -> Problem:
    """Problem `number`: filler with the facts at even distances from a random depth on, beside facts about others."""
    draw = random.Random(f"{name}:{number}")
    kind = list(HOPS)[number % len(HOPS)]
    facts, question, answer = make_facts(HOPS[kind], draw)
    sentences: list[str] = []
    while sum(map(len, sentences)) + len(sentences) < tokens * CHARACTERS_PER_TOKEN:
        sentences.append(f"{draw.choice(THINGS)} {draw.choice(DEEDS)} {draw.choice(PLACES)}.")
    for fact in facts:
        sentences.insert(draw.randrange(len(sentences) + 1), fact)
    prompt = PROMPTS[protocol].format(text=" ".join(sentences), question=question)
    return Problem(name, f"{name}/{number}", prompt, str(answer), {"answer": str(answer), "kind": kind})


def make_facts(hops: int, draw: random.Random) -> tuple[list[str], str, int]:
    """(facts in random order, question, answer). A second chain of the same length leads to another number."""
    people = draw.sample(NAMES, 2 * hops)
    numbers = draw.sample(range(1000, 10_000), 2)
    facts = []
    for chain, number in zip((people[:hops], people[hops:]), numbers, strict=True):
        for one, other in itertools.pairwise(chain):
            facts.append(f"The secret number of {one} is the same as that of {other}.")
        facts.append(f"The secret number of {chain[-1]} is {number}.")
    draw.shuffle(facts)
    return facts, f"What is the secret number of {people[0]}?", numbers[0]


def grade(problems: Sequence[Problem], texts: Sequence[str], finished: Sequence[bool] | None = None) -> list[Graded]:
    """By value, as in training; an answer that goes on after the number is read up to there."""
    scores = check_answers(problems, texts, None)
    return [Graded({"accuracy": score}, extract_answer(text)) for score, text in zip(scores, texts, strict=True)]
