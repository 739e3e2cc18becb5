"""What judges sampled answers: a trained reward model, and the teacher it reads where it was trained with readings.

It may assume records of graded answers. It will not sample, grade or choose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from reward_models.learned import learned, quality_of

from ... import distributed
from ...config import ConfigError
from ...generation.sampling import ending_ids
from ...models.loading import load_tokenizer
from ...models.tokenizers import num_token_ids, prompt_ids
from ...teachers.colocated import ColocatedTeacher
from ..command_line import Settings
from ..loading import load_model
from ..records import Record

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
