"""Best of n: of several sampled answers the one that a trained reward model likes most, beside greedy and majority.

It may assume records of the greedy answers, and of n samples of the same problems. It will not sample or grade.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from reward_models.learned import learned, quality_of

from .. import distributed
from ..config import ConfigError
from ..generation.sampling import ending_ids
from ..models.loading import load_tokenizer
from ..models.tokenizers import num_token_ids, prompt_ids
from ..teachers.colocated import ColocatedTeacher
from .command_line import Settings
from .comparison import compare_records
from .loading import load_model
from .records import Record, graded_samples, summarize_metric

Judge = Callable[[Sequence[Record]], list[float | None]]
TEMPERATURE = 1.0
"""Of the samples where --temperature leaves it at greedy."""
LABEL = "model_samples"


def sampled(settings: Settings) -> Settings:
    """The settings under which the samples to choose from are made."""
    temperature = settings.temperature or TEMPERATURE
    return replace(settings, num_samples=settings.best_of, temperature=temperature)


def make_judge(settings: Settings) -> Judge:
    """What scores records by the reward model of --by; ConfigError where it may not be used or lacks its readings."""
    assert settings.by is not None
    try:
        quality = quality_of(settings.by)
        output = "correct" if quality["predicts_correctness"] else "score"
        reward = learned(settings.by, output=output)
    except ValueError as error:
        raise ConfigError(f"--by: {error}") from error
    reads = quality.get("readings", False)
    if settings.readings_from is not None and not reads:
        raise ConfigError(f"--readings_from: the reward model {settings.by} reads no teacher; leave it out")
    read = None if settings.readings_from is None else readings_by(settings, settings.readings_from)

    def judge(records: Sequence[Record]) -> list[float | None]:
        asked = {"prompts": [r["prompt"] for r in records], "completions": [r["completion"] for r in records]}
        try:
            return reward(**asked, **({} if read is None else read(records)))
        except ValueError as error:  # too poor without the readings that nobody gave it
            hint = "; --readings_from TEACHER gives it readings" if reads and read is None else ""
            raise ConfigError(f"--by: {error}{hint}") from error

    return judge


def readings_by(settings: Settings, path: str) -> Callable[[Sequence[Record]], dict[str, list]]:
    """Columns of the teacher's log-probabilities and entropies of the records' completions, each with its end."""
    tokenizer, model = load_tokenizer(path), load_model(path, settings.dtype, distributed.device())
    teacher = ColocatedTeacher(
        model,
        eos_token_ids=ending_ids(model, [tokenizer.eos_token_id]),
        pad_token_id=tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        micro_batch_size=settings.batch_size,
        num_tokens_vocab=num_token_ids(tokenizer),
    )

    @torch.inference_mode()
    def read(records: Sequence[Record]) -> dict[str, list]:
        texts = tokenizer([record["completion"] for record in records], add_special_tokens=False)["input_ids"]
        ids = [row + [tokenizer.eos_token_id] * (r["finish"] == "stop") for row, r in zip(texts, records, strict=True)]
        ids = [row or [tokenizer.eos_token_id] for row in ids]
        prompts = prompt_ids(tokenizer, [record["prompt"] for record in records])
        scores = teacher.score(prompts, ids, temperature=settings.temperature or TEMPERATURE)
        columns = {"teacher_logprobs": scores.logprobs_N, "teacher_entropy": scores.entropy_N}
        return {name: [row.tolist() for row in flat.split(list(map(len, ids)))] for name, flat in columns.items()}

    return read


def chosen(records: Sequence[Record], values: Sequence[float | None]) -> list[Record]:
    """Per problem the sample of the highest value, the first of equals; a value of None is below all others."""
    best: dict[int, tuple[float, Record]] = {}
    for record, value in zip(records, values, strict=True):
        rank = float("-inf") if value is None else value
        if record["index"] not in best or rank > best[record["index"]][0]:
            best[record["index"]] = rank, record
    return [record for _, record in best.values()]


def majority(records: Sequence[Record]) -> list[Record]:
    """Per problem a sample with the most frequent extracted answer, the first of equals; the first sample where no
    answer could be extracted (programs). Wang et al. 2022, "Self-Consistency".
    """
    by_problem: dict[int, list[Record]] = {}
    for record in records:
        by_problem.setdefault(record["index"], []).append(record)
    picked = []
    for samples in by_problem.values():
        counts = Counter(record["extracted"] for record in samples if record["extracted"] is not None)
        answer = counts.most_common(1)[0][0] if counts else samples[0]["extracted"]
        picked.append(next(record for record in samples if record["extracted"] == answer))
    return picked


def compare(
    metric: str, greedy: Sequence[Record], samples: Sequence[Record], values: Sequence[float | None], seed: int
) -> dict[str, Any]:
    """The headline metric of every way to answer, and how far choosing by the model is ahead of the others, paired."""
    ways = {"best_of": chosen(samples, values), "greedy": greedy, "majority": majority(samples), "random": samples}
    anyone = [max(scores) for scores in graded_samples(samples, metric).values()]
    return {
        "ways": {name: summarize_metric(metric, records) for name, records in ways.items()},
        "any_right": sum(anyone) / len(anyone) if anyone else None,
        "best_of_minus": {
            name: compare_records(metric, ways["best_of"], records, seed)
            for name, records in ways.items()
            if name != "best_of"
        },
        "not_scored": sum(value is None for value in values),
    }


def table(entries: dict[str, dict[str, Any]]) -> str:
    """By task, in Markdown: percent of problems, and what choosing by the model adds."""
    lines = ["| task | answered by | value | best of n minus it | 95 % interval |", "|---|---|---|---|---|"]
    for task, found in entries.items():
        for name, summary in found["ways"].items():
            value = "-" if summary["value"] is None else f"{100 * summary['value']:.1f}"
            lead, interval = "", ""
            if name != "best_of" and found["best_of_minus"][name]["difference"] is not None:
                difference = found["best_of_minus"][name]
                lead = f"{100 * difference['difference']:+.1f}"
                interval = " to ".join(f"{100 * end:+.1f}" for end in difference["ci95"])
            lines.append(f"| {task} | {name.replace('_', ' ')} | {value} | {lead} | {interval} |")
        if found["any_right"] is not None:
            lines.append(f"| {task} | any of them right | {100 * found['any_right']:.1f} | | |")
    return "\n".join(lines)
