"""What a reward model learns from: per prompt the teacher's greedy output and outputs of the untrained student, scored.

The teacher also reads every candidate where the model is to have its readings, and cheats (probes.py) join the rest.

Texts are cached as they come and the scored rows as one file, keyed by everything they were made from; held-out prompts
share no key with training prompts.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from reward_models import VERIFYING_REWARDS, BlendedScores, RewardBlend, RewardSpec

from .. import distributed
from ..config import ConfigError, RunConfig
from ..data.reward_inputs import reward_inputs
from ..generation.sampling import Sampling, added_text, generate
from ..models.tokenizers import num_token_ids, prompt_ids
from ..ppo.rollout import successes
from ..progress import Stages
from ..run_setup import RunContext, cache_dir_of, count_tokens, teacher_texts
from ..startup.rewards import has_gold
from ..teachers import Teacher
from ..teachers.colocated import fingerprint
from ..teachers.outputs import TeacherOutput, TeacherOutputCache, output_key
from ..types import Completion, Finish, Problem
from .examples import Example
from .probes import PREFIX, is_probe, probes_of
from .settings import RewardModelRunConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHARD = 256


Candidate = tuple[Problem, str | None, str, str]
"""Problem, the teacher's output, the answer, and its source."""


def split_problems(problems: Sequence[Problem], config: RewardModelRunConfig) -> tuple[list[Problem], list[Problem]]:
    """(training, held-out) problems, drawn by the split's seed; no key is in both.

    Raises ConfigError where there are not enough prompts.
    """
    settings = config.reward_model
    if settings.labelled_only:
        problems = [problem for problem in problems if has_gold(problem)]
        if not problems:
            raise ConfigError("reward_model.labelled_only: no training prompt has a gold answer or tests")
    keys = sorted({problem.key for problem in problems})
    random.Random(f"{config.split_seed}:reward_model").shuffle(keys)
    by_key: dict[str, list[Problem]] = {}
    for problem in problems:
        by_key.setdefault(problem.key, []).append(problem)
    heldout: list[Problem] = []
    while keys and len(heldout) < settings.num_heldout_prompts:
        heldout += by_key[keys.pop()]
    train = [problem for key in keys for problem in by_key[key]][: settings.num_train_prompts]
    if not train:
        raise ConfigError(
            f"reward_model.num_heldout_prompts: {settings.num_heldout_prompts} of {len(problems)} training prompts are "
            "held out, so none is left to train on"
        )
    return train, heldout[: settings.num_heldout_prompts]


def make_examples(
    config: RewardModelRunConfig, context: RunContext, stages: Stages
) -> tuple[list[Example], list[Example], int]:
    """(training examples, held-out examples, number of candidates without a score); from the cache if it has them."""
    train, heldout = split_problems(context.splits.train, config)
    problems = train + heldout
    key = _data_key(config, context, problems)
    path = cache_dir_of(config) / "reward_data" / f"{key}.parquet"
    if not path.is_file():
        examples = distributed.gather_list(_made_here(config, context, problems, stages))
        examples.sort(key=is_probe)  # cheats last, as one process makes them
        if not examples:
            raise ConfigError("rewards: not one of the candidates could be scored; see what they need of the data")
        if distributed.is_main():
            _write(path, examples)
        distributed.barrier()
    examples = [Example(**row) for row in pq.read_table(path).to_pylist()]
    honest = sum(not is_probe(example) for example in examples)
    unscored = len(problems) * (config.reward_model.teacher_texts + config.reward_model.num_student_outputs) - honest
    train_keys = {problem.key for problem in train}
    return (
        [example for example in examples if example.key in train_keys],
        [example for example in examples if example.key not in train_keys],
        unscored,
    )


def _made_here(
    config: RewardModelRunConfig, context: RunContext, problems: Sequence[Problem], stages: Stages
) -> list[Example]:
    """This process's share of the examples; those of all processes, in rank order, are those of a single one."""
    settings = config.reward_model
    share, number = distributed.my_rows(len(problems)), settings.num_student_outputs
    mine = problems[share.start : share.stop]
    teacher: list[str | None] = [None] * len(mine)
    if settings.teacher_texts:
        with stages("teacher_texts", f"the teacher answers {len(problems)} prompts"):
            teacher = [texts[0] for texts in teacher_texts(config, context.teacher, context.tokenizer, mine, 1)]
    with stages("student_texts", f"the untrained student answers {len(problems)} prompts, {number} time(s) each"):
        student = student_texts(config, context, mine)
    with stages("scores", f"the rewards score {len(problems) * (settings.teacher_texts + number)} answers"):
        examples = scored_rows(config, context, mine, teacher, student)
    with stages("probes", "cheats are made of right answers, and scored"):
        heldout = {problem.key for problem in split_problems(context.splits.train, config)[1]}
        probed = [problem for problem in mine if settings.train_on_probes or problem.key in heldout]
        return examples + probe_rows(config, context, probed, examples)


def student_texts(
    config: RewardModelRunConfig, context: RunContext, problems: Sequence[Problem]
) -> list[tuple[str, ...]]:
    """Sampled answers of the student as it is now; each depends on the seed, its prompt and its number alone."""
    number = config.reward_model.num_student_outputs
    settings = config.generation
    sampling = Sampling(settings.max_completion_length, settings.temperature, settings.top_p)
    cache = TeacherOutputCache(cache_dir_of(config) / "student_texts")
    how = {"num_texts": number, "seed": config.seed, **vars(sampling)}
    student = fingerprint(context.student)
    keys = [output_key(student, problem.prompt, how) for problem in problems]
    found = cache.get(keys)
    missing = [row for row, key in enumerate(keys) if key not in found]
    context.student.eval()
    for start in tqdm(range(0, len(missing), SHARD), "student texts", unit="shard", disable=not distributed.is_main()):
        rows = [row for row in missing[start : start + SHARD] for _ in range(number)]
        seeds = [_seed(config.seed, problems[row].prompt, i % number) for i, row in enumerate(rows)]
        prompts = prompt_ids(context.tokenizer, [problems[row].prompt for row in rows])
        generated = generate(
            context.student,
            prompts,
            sampling,
            eos_token_ids=[context.tokenizer.eos_token_id],
            pad_token_id=context.tokenizer.pad_token_id,
            seeds=seeds,
            batch_size=len(rows),
            vocab_size=num_token_ids(context.tokenizer),
        )
        texts = [added_text(context.tokenizer, p, item.token_ids) for p, item in zip(prompts, generated, strict=True)]
        finished = [item.finish is Finish.STOP for item in generated]
        cache.put(
            TeacherOutput(
                keys[row], problems[row].prompt, tuple(texts[i : i + number]), tuple(finished[i : i + number])
            )
            for i, row in zip(range(0, len(rows), number), rows[::number], strict=True)
        )
    found = cache.get(keys)
    return [found[key].texts for key in keys]


def _seed(seed: int, prompt: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}:{prompt}".encode()).digest()[:7], "big")


def scored_rows(
    config: RewardModelRunConfig,
    context: RunContext,
    problems: Sequence[Problem],
    teacher: Sequence[str | None],
    student: Sequence[Sequence[str]],
) -> list[Example]:
    """Every candidate with its blended score and verdict; candidates without a score are left out."""
    return score_candidates(
        config,
        context,
        [
            (problem, reference, text, source)
            for problem, reference, texts in zip(problems, teacher, student, strict=True)
            for source, text in (("teacher", reference), *(("student", text) for text in texts))
            if text is not None
        ],
    )


def probe_rows(
    config: RewardModelRunConfig, context: RunContext, problems: Sequence[Problem], examples: Sequence[Example]
) -> list[Example]:
    """The scored cheats of each problem that has a right answer, without those that the check takes for right."""
    right: dict[str, Example] = {}
    for row in examples:
        if row.verdict == 1.0:
            right.setdefault(row.prompt, row)
    candidates: list[Candidate] = []
    for problem in problems:
        if problem.prompt not in right:
            continue
        example = right[problem.prompt]
        rng = random.Random(f"{config.seed}:probes:{problem.prompt}")
        made = probes_of(example.candidate, context.tokenizer, config.generation.max_completion_length, rng)
        candidates += [(problem, example.teacher_output, text, PREFIX + kind) for kind, text in made.items()]
    return [example for example in score_candidates(config, context, candidates) if example.verdict != 1.0]


def score_candidates(
    config: RewardModelRunConfig, context: RunContext, candidates: Sequence[Candidate]
) -> list[Example]:
    """Every candidate with its blended score, its verdict and, where the model is to have them, its readings."""
    examples = []
    with RewardBlend(_specs(config)) as blend:
        for start in range(0, len(candidates), SHARD):
            rows = candidates[start : start + SHARD]
            scores, readings = _score(config, context, blend, rows)
            columns = zip(rows, scores.total, successes(scores), readings, strict=True)
            examples += [
                Example(problem.key, problem.task, problem.prompt, reference, text, source, score, verdict, read)
                for (problem, reference, text, source), score, verdict, read in columns
                if score is not None
            ]
    return examples


def _specs(config: RunConfig) -> list[RewardSpec]:
    """The run's rewards; a task check of weight 0 joins them where none of them verifies answers."""
    specs = [RewardSpec.from_config(entry) for entry in config.rewards]
    verified = any(spec.label in VERIFYING_REWARDS for spec in specs)
    return specs if verified else [*specs, RewardSpec("task_check", 0.0)]


def _score(
    config: RewardModelRunConfig, context: RunContext, blend: RewardBlend, rows: Sequence[Candidate]
) -> tuple[BlendedScores, list[list[list[float]] | None]]:
    """(scores, readings) of the candidates; one pass of the teacher serves both."""
    problems, texts = [problem for problem, *_ in rows], [text for _, _, text, _ in rows]
    eos = [context.tokenizer.eos_token_id]
    ids = [ids + eos for ids in context.tokenizer(texts, add_special_tokens=False)["input_ids"]]
    completions = [Completion(text, row, Finish.STOP) for text, row in zip(texts, ids, strict=True)]
    inputs = reward_inputs(problems, completions)
    inputs["columns"]["teacher_output"] = [reference for _, reference, _, _ in rows]
    readings: list[list[list[float]] | None] = [None] * len(rows)
    teacher_columns = None
    reads = config.reward_model.readings
    if reads or any(spec.fn == "teacher_likelihood" for spec in blend.specs):
        columns = teacher_readings(
            context.teacher,
            context.tokenizer,
            inputs["columns"]["rendered_prompt"],
            ids,
            tasks=[problem.task for problem in problems],
            temperature=config.generation.temperature,
        )
        teacher_columns = {"teacher_logprobs": columns[0]}
        if reads:
            readings = [[list(pair) for pair in zip(*both, strict=True)] for both in zip(*columns, strict=True)]
    return blend.score(**inputs, teacher_columns=teacher_columns), readings


def teacher_readings(
    teacher: Teacher,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    completion_ids: Sequence[list[int]],
    *,
    tasks: Sequence[str],
    temperature: float,
) -> tuple[list[list[float]], list[list[float]]]:
    """(log-probabilities, entropies) of each completion's tokens, by a pass of the teacher."""
    scores = teacher.score(prompt_ids(tokenizer, prompts), completion_ids, tasks=tasks, temperature=temperature)
    lengths = [len(row) for row in completion_ids]
    logprobs, entropy = (flat.float().split(lengths) for flat in (scores.logprobs_N, scores.entropy_N))
    return [row.tolist() for row in logprobs], [row.tolist() for row in entropy]


def ledger_of(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """What these examples cost, by the keys of RunContext.ledger; the same whether they came from the cache or not."""
    written = [example.candidate for example in examples if example.source == "teacher"]
    read = [example for example in examples if example.readings]
    prompts = prompt_ids(tokenizer, [example.prompt for example in read])
    return {
        "student_sequences": sum(example.source == "student" for example in examples),
        "teacher_tokens_generated": count_tokens(tokenizer, written),
        "teacher_tokens_scored": sum(map(len, prompts)) + sum(len(example.readings or ()) for example in read),
    }


def _data_key(config: RewardModelRunConfig, context: RunContext, problems: Sequence[Problem]) -> str:
    generation = config.generation
    made_from: list[Any] = [
        context.teacher.fingerprint,
        fingerprint(context.student),
        config.seed,
        config.reward_model.num_student_outputs,
        [generation.max_completion_length, generation.temperature, generation.top_p],
        list(config.rewards),
        [[problem.prompt, problem.columns] for problem in problems],
        [config.reward_model.teacher_texts, config.reward_model.readings, config.reward_model.train_on_probes],
        config.reward_model.num_heldout_prompts,
        config.split_seed,
    ]
    return hashlib.sha256(json.dumps(made_from, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _write(path: Path, examples: Sequence[Example]) -> None:
    """One parquet file, whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    pq.write_table(pa.Table.from_pylist([asdict(example) for example in examples]), temporary)
    temporary.rename(path)
