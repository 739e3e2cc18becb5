"""What a run works with: problems by split, the teacher, the student before training, and their tokenizer.

Either the demo context, made and cached here, or the user's own models and prompts. Every stage is announced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import AutoTokenizer

from . import distributed
from .config import ConfigError, RunConfig, teachers_of
from .data.loading import load_splits
from .demo.models import make_splits, student_folder, teacher_folder
from .distill.sft import TrainingText
from .distributed import TeacherLink
from .evals.evaluation import grade
from .generation.sampling import Sampling, added_text
from .models.heads import check_head
from .models.loading import load
from .models.tokenizers import check_same_tokenizer
from .progress import Stages
from .teachers import Teacher
from .teachers.multi_teacher import RoutedTeacher
from .teachers.outputs import TeacherOutput, TeacherOutputCache, output_key
from .teachers.placement import open_teacher, open_teachers
from .types import Completion, Finish, Problem, Splits

TEXTS_PER_SHARD = 256


@dataclass
class RunContext:
    """`teacher_success` is the teacher's verified rate per task on prompts it wrote for: the anchor's evidence."""

    splits: Splits
    teacher: Teacher
    student: Any
    tokenizer: Any
    teacher_success: dict[str, float]
    teacher_tokens_generated: int
    link: TeacherLink | None = None
    """To the teacher's processes, where it has some."""

    def close(self) -> None:
        """Ends what the teacher keeps running; to be called by all student processes after the last request."""
        self.teacher.close()
        distributed.barrier()
        if self.link is not None and distributed.is_main():
            self.link.shutdown()

    def ledger(self, student_sequences: int) -> dict[str, int]:
        """What the run spent: sequences the student sampled, tokens the teacher wrote and tokens it scored."""
        return {
            "student_sequences": student_sequences,
            "teacher_tokens_generated": self.teacher_tokens_generated,
            "teacher_tokens_scored": self.teacher.tokens_scored,
        }


def prepare(config: RunConfig, stages: Stages, link: TeacherLink | None = None) -> RunContext:
    """The context of the config; `link` leads to the teacher where it has processes of its own.

    Raises ConfigError where models, tokenizers or data do not fit together.
    """
    return (_own if config.demo is None else _demo_context)(config, stages, link)


def cache_dir_of(config: RunConfig) -> Path:
    return Path(config.cache_dir or Path(config.output_dir) / "cache")


def _demo_context(config: RunConfig, stages: Stages, link: TeacherLink | None) -> RunContext:
    """Teacher, its budget of outputs, and the student after its cold start; cached ones are reused."""
    assert config.demo is not None
    cache_dir, work_dir = cache_dir_of(config), Path(config.output_dir) / "work"
    splits = make_splits(config.demo, config.seed)
    with stages("teacher", "the teacher learns from reference solutions"):
        teacher_path = teacher_folder(config, config.demo, cache_dir, work_dir)
    tokenizer: Any = AutoTokenizer.from_pretrained(teacher_path)
    teacher = open_teacher(config, str(teacher_path), "float32", tokenizer, link)
    with stages("outputs", f"the teacher writes {len(splits.cold_start)} outputs"):
        outputs = teacher_outputs(config, teacher, tokenizer, splits.cold_start, 1)
        texts = [output.texts[0] for output in outputs]
        rates = success_rates(splits.cold_start, texts)
    with stages("cold_start", "the student learns from those outputs"):
        lessons = [TrainingText(output.prompt, output.texts[0], output.finished[0]) for output in outputs]
        student_path = student_folder(config, config.demo, teacher_path, lessons, cache_dir, work_dir)
    student = load(student_path)[0].to(distributed.device())
    context = RunContext(splits, teacher, student, tokenizer, rates, count_tokens(tokenizer, texts), link)
    return _with_teacher_texts(config, context, stages)


def _own(config: RunConfig, stages: Stages, link: TeacherLink | None) -> RunContext:
    """The user's student, teacher and prompts; the two must share one tokenizer."""
    teachers = [str(teacher.model) for teacher in teachers_of(config)]
    with stages("models", f"loading student {config.student.model} and teacher {', '.join(teachers)}"):
        student, tokenizer = load(str(config.student.model), config.student.dtype, config.student.quantization)
        check_head(student, "student", bias_allowed=True)
        for model in teachers:
            check_same_tokenizer(tokenizer, AutoTokenizer.from_pretrained(model))
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        teacher = open_teachers(config, tokenizer, link)
    with stages("data", f"loading prompts from {config.data.train}"):
        splits = load_splits(config.data, tokenizer, config.seed)
        if isinstance(teacher, RoutedTeacher):
            teacher.shares([problem.task for problem in [*splits.train, *splits.validation, *splits.test]])
    if config.student.quantization is None:  # a quantized model is on its device and may not be moved
        student = student.to(distributed.device())
    context = RunContext(splits, teacher, student, tokenizer, {}, 0, link)
    if config.anchor.schedule == "evidence" and config.anchor.placement != "none":
        sample = splits.train[: config.teacher.num_evidence_prompts]
        with stages("evidence", f"the teacher solves {len(sample)} training problems"):
            texts = [texts[0] for texts in teacher_texts(config, teacher, tokenizer, sample, 1)]
            context.teacher_success = success_rates(sample, texts)
            context.teacher_tokens_generated += count_tokens(tokenizer, texts)
        if not context.teacher_success:
            raise ConfigError(
                "anchor.schedule: evidence found no training problem that can be checked: the data needs an `answer` "
                "column, or `test` and `entry_point`; or set anchor.schedule to fixed"
            )
    return _with_teacher_texts(config, context, stages)


def _with_teacher_texts(config: RunConfig, context: RunContext, stages: Stages) -> RunContext:
    """Adds the column `teacher_output` to the training problems where the config asks the teacher for texts."""
    num_texts = config.teacher.num_outputs_per_prompt
    if num_texts == 0:
        return context
    with stages(
        "teacher_texts", f"the teacher writes {num_texts} text(s) for each of {len(context.splits.train)} prompts"
    ):
        texts = teacher_texts(config, context.teacher, context.tokenizer, context.splits.train, num_texts)
    context.teacher_tokens_generated += sum(count_tokens(context.tokenizer, several) for several in texts)
    train = [
        replace(problem, columns=problem.columns | {"teacher_output": list(several)})
        for problem, several in zip(context.splits.train, texts, strict=True)
    ]
    context.splits = replace(context.splits, train=train)
    return context


def teacher_texts(
    config: RunConfig, teacher: Teacher, tokenizer: Any, problems: Sequence[Problem], num_texts: int
) -> list[tuple[str, ...]]:
    """The texts of `teacher_outputs`."""
    return [output.texts for output in teacher_outputs(config, teacher, tokenizer, problems, num_texts)]


def teacher_outputs(
    config: RunConfig, teacher: Teacher, tokenizer: Any, problems: Sequence[Problem], num_texts: int
) -> list[TeacherOutput]:
    """`num_texts` texts per problem (one: greedy; several: sampled as rollouts are), from the cache where it has them.

    Texts are stored as they come, so an interrupted run goes on where it stopped.
    """
    settings = config.generation
    greedy = Sampling(settings.max_completion_length, temperature=0.0)
    sampled = Sampling(settings.max_completion_length, settings.temperature, settings.top_p)
    sampling = greedy if num_texts == 1 else sampled
    cache = TeacherOutputCache(cache_dir_of(config) / "teacher_texts")
    how = {"num_texts": num_texts, **vars(sampling)}
    keys = [output_key(teacher.fingerprint, problem.prompt, how) for problem in problems]
    found = cache.get(keys)
    missing = [row for row, key in enumerate(keys) if key not in found]
    shards = range(0, len(missing), TEXTS_PER_SHARD)
    for start in tqdm(shards, desc="teacher texts", unit="shard", disable=len(shards) < 2 or not distributed.is_main()):
        rows = missing[start : start + TEXTS_PER_SHARD]
        tasks = [problems[row].task for row in rows for _ in range(num_texts)]
        prompt_ids = [
            tokenizer(problems[row].prompt, add_special_tokens=False)["input_ids"]
            for row in rows
            for _ in range(num_texts)
        ]
        generated = teacher.generate(prompt_ids, sampling, tasks=tasks)
        texts = [added_text(tokenizer, p, item.token_ids) for p, item in zip(prompt_ids, generated, strict=True)]
        finished = [item.finish is Finish.STOP for item in generated]
        pieces = [slice(i * num_texts, (i + 1) * num_texts) for i in range(len(rows))]
        cache.put(
            TeacherOutput(keys[row], problems[row].prompt, tuple(texts[piece]), tuple(finished[piece]))
            for row, piece in zip(rows, pieces, strict=True)
        )
    found = cache.get(keys)
    return [found[key] for key in keys]


def success_rates(problems: Sequence[Problem], texts: Sequence[str]) -> dict[str, float]:
    """The share of right texts per task, over those that could be graded."""
    grades = grade(problems, [Completion(text, [0], Finish.STOP) for text in texts])
    graded = [(problem.task, g) for problem, g in zip(problems, grades, strict=True) if g is not None]
    counts = Counter(task for task, _ in graded)
    return {task: sum(g for t, g in graded if t == task) / count for task, count in sorted(counts.items())}


def count_tokens(tokenizer: Any, texts: Sequence[str]) -> int:
    """Tokens of the texts, with an EOS each."""
    return sum(len(ids) + 1 for ids in tokenizer(list(texts))["input_ids"])
