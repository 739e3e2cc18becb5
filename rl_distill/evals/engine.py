"""Solves and grades the problems of one task with one model, in any number of processes, resuming where it stopped.

Batches are formed from all problems before anything is known about processes or earlier records, and a batch is always
generated whole: so completions do not depend on how many processes there are or on interruptions.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from reward_models.reasoning import opens_reasoning

from .. import distributed
from ..generation.sampling import Generated, Sampling, StopStrings, added_text, ending_ids, generate
from ..models.tokenizers import num_token_ids, prompt_ids
from ..tasks.base import Task
from ..types import Finish, Problem
from .records import RecordFiles

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Item:
    """One completion to make: a problem, which sample of it, and the tokens shown to the model."""

    index: int
    sample: int
    problem: Problem
    text: str
    token_ids: list[int]


@dataclass(frozen=True)
class Student:
    """A model with its tokenizer and what ends its answers."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    eos_token_ids: list[int]

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Student:
        """Ends of an answer: those of the model's generation config (chat models have several) and the tokenizer's."""
        own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        return cls(model, tokenizer, ending_ids(model, own))


def shown(task: Task, problem: Problem, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text the model continues: the prompt, in the chat template under the protocol `chat`."""
    prompt = task.prompt(problem)
    if task.protocol != "chat":
        return prompt
    messages = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def make_items(
    task: Task, problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase, num_samples: int
) -> list[Item]:
    """Every completion to make, in order."""
    texts = [shown(task, problem, tokenizer) for problem in problems]
    return [
        Item(index, sample, problem, text, ids)
        for index, (problem, text, ids) in enumerate(zip(problems, texts, prompt_ids(tokenizer, texts), strict=True))
        for sample in range(num_samples)
    ]


def make_batches(items: Sequence[Item], batch_size: int) -> list[list[Item]]:
    """Items of similar prompt length together; the longest first, so that memory trouble shows at once."""
    order = sorted(items, key=lambda item: (-len(item.token_ids), item.index, item.sample))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def row_seed(seed: int, key: str, sample: int) -> int:
    """The seed of one completion: a function of run seed, problem and sample alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}:{sample}".encode()).digest()[:7], "big")


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop string, and whether there was one."""
    ends = [end for stop in stops if (end := text.find(stop)) != -1]
    return (text[: min(ends)], True) if ends else (text, False)


def solve(
    task: Task,
    problems: Sequence[Problem],
    student: Student,
    files: RecordFiles,
    *,
    sampling: Sampling,
    num_samples: int = 1,
    batch_size: int = 32,
    seed: int = 0,
    progress: Any = None,
) -> list[dict[str, Any]]:
    """The records of all completions, in order, on every process. Batches that are on record are not made again."""
    batches = make_batches(make_items(task, problems, student.tokenizer, num_samples), batch_size)
    done = set(files.read())
    distributed.barrier()  # nobody writes while another still reads
    for batch in _my_batches(batches, done):
        made = _solve_batch(task, student, batch, sampling, seed)
        files.append(distributed.rank(), [record for record in made if (record["index"], record["sample"]) not in done])
        if progress is not None:
            progress(len(batch))
    distributed.barrier()
    records = files.merge() if distributed.is_main() else []
    distributed.barrier()
    return records or [record for _, record in sorted(files.read().items())]


def _my_batches(batches: Sequence[list[Item]], done: set[tuple[int, int]]) -> Iterator[list[Item]]:
    open_batches = [batch for batch in batches if any((item.index, item.sample) not in done for item in batch)]
    yield from open_batches[distributed.rank() :: distributed.world_size()]


def _solve_batch(
    task: Task, student: Student, batch: list[Item], sampling: Sampling, seed: int
) -> list[dict[str, Any]]:
    start = time.perf_counter()
    generated = complete(student, [item.token_ids for item in batch], sampling, seeds_of(batch, seed), task.stops)
    seconds = time.perf_counter() - start
    texts = [
        cut(added_text(student.tokenizer, item.token_ids, output.token_ids), task.stops)
        for item, output in zip(batch, generated, strict=True)
    ]
    ends = [Finish.STOP if stopped else output.finish for (_, stopped), output in zip(texts, generated, strict=True)]
    graded = task.graded(
        [item.problem for item in batch],
        [said(item, text) for item, (text, _) in zip(batch, texts, strict=True)],
        [end is Finish.STOP for end in ends],
    )
    choices = [{"choices": choice_logprobs(student, item, task.choices)} if task.choices else {} for item in batch]
    return [
        {
            "task": task.name,
            "key": item.problem.key,
            "index": item.index,
            "sample": item.sample,
            "prompt": item.text,
            "completion": text,
            "extracted": verdict.extracted,
            "scores": dict(verdict.scores),
            "finish": end.value,
            "tokens": len(output.token_ids),
            "prompt_tokens": len(item.token_ids),
            **({"language": str(language)} if (language := item.problem.columns.get("language")) else {}),
            "seconds": round(seconds / len(batch), 6),
            **extra,
        }
        for item, (text, _), verdict, output, end, extra in zip(
            batch, texts, graded, generated, ends, choices, strict=True
        )
    ]


def said(item: Item, text: str) -> str:
    """The completion with the `<think>` that its prompt already opened: graders see where reasoning starts."""
    return f"<think>{text}" if opens_reasoning(item.text) else text


def seeds_of(batch: Sequence[Item], seed: int) -> list[int]:
    return [row_seed(seed, item.problem.key, item.sample) for item in batch]


@torch.inference_mode()
def complete(
    student: Student,
    prompt_ids: list[list[int]],
    sampling: Sampling,
    seeds: list[int] | None = None,
    stops: Sequence[str] = (),
) -> list[Generated]:
    """One completion per prompt, in one batch, by the generation that training uses; a stop string is its last text."""
    return generate(
        student.model,
        prompt_ids,
        sampling,
        eos_token_ids=student.eos_token_ids,
        pad_token_id=student.tokenizer.pad_token_id if student.tokenizer.pad_token_id is not None else 0,
        seeds=seeds,
        batch_size=len(prompt_ids),
        vocab_size=num_token_ids(student.tokenizer),
        stop=StopStrings(student.tokenizer, stops) if stops else None,
    )


@torch.inference_mode()
def choice_logprobs(student: Student, item: Item, choices: Sequence[str]) -> dict[str, float]:
    """Log-probability of each choice as the answer, in nats: the sum over its tokens, after a space if one is due."""
    found = {}
    for choice in choices:
        text = choice if item.text[-1:].isspace() else f" {choice}"
        ids = student.tokenizer(text, add_special_tokens=False)["input_ids"]
        inputs = torch.tensor([item.token_ids + ids], device=next(student.model.parameters()).device)
        logits = student.model(inputs).logits[0, len(item.token_ids) - 1 : -1, : num_token_ids(student.tokenizer)]
        logprobs = torch.log_softmax(logits.float(), dim=-1)
        found[choice] = logprobs.gather(-1, inputs[0, len(item.token_ids) :, None]).sum().item()
    return found
