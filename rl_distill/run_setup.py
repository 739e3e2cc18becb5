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
from .config import ConfigError, RunConfig, StudentConfig, teachers_of
from .demo.models import make_splits, student_folder, teacher_folder
from .distributed import TeacherLink
from .evals.evaluation import grade
from .generation.sampling import Sampling, added_text, ending_ids
from .models.heads import check_head
from .models.loading import load, load_model, load_tokenizer
from .progress import Stages
from .startup import preflight
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


def load_student(settings: StudentConfig) -> Any:
    """The student's weights; an adapter folder is trained further or merged, as the settings say."""
    continues = settings.adapter == "continue"
    return load_model(
        str(settings.model), settings.dtype, settings.quantization, who="student", continue_adapter=continues
    )


def end_at_either(student: Any, tokenizers: Sequence[Any]) -> None:
    """Lets the student's answers end at the EOS of each tokenizer, here and as it is exported: a base model and its
    instruct sibling have one vocabulary and end texts with different tokens of it.
    """
    student.generation_config.eos_token_id = ending_ids(student, [t.eos_token_id for t in tokenizers])


def cache_dir_of(config: RunConfig) -> Path:
    return Path(config.cache_dir or Path(config.output_dir) / "cache")


def _demo_context(config: RunConfig, stages: Stages, link: TeacherLink | None) -> RunContext:
    """Teacher, its budget of outputs, and the student after its cold start; cached ones are reused."""
    assert config.demo is not None
    cache_dir, work_dir = cache_dir_of(config), Path(config.output_dir) / "work"
    preflight.check_files(config)
    splits = make_splits(config.demo, config.seed)
    with stages("teacher", "the teacher learns from reference solutions"):
        teacher_path = teacher_folder(config, config.demo, cache_dir, work_dir)
    tokenizer: Any = AutoTokenizer.from_pretrained(teacher_path)
    teacher = open_teacher(config, str(teacher_path), "float32", tokenizer, link)
    with stages("outputs", f"the teacher writes {len(splits.cold_start)} outputs"):
        texts = [texts[0] for texts in teacher_texts(config, teacher, tokenizer, splits.cold_start, 1)]
        rates = success_rates(splits.cold_start, texts)
    with stages("cold_start", "the student learns from those outputs"):
        pairs = [(problem.prompt, text) for problem, text in zip(splits.cold_start, texts, strict=True)]
        student_path = student_folder(config, config.demo, teacher_path, pairs, cache_dir, work_dir)
    student = load(student_path)[0].to(distributed.device())
    context = RunContext(splits, teacher, student, tokenizer, rates, count_tokens(tokenizer, texts), link)
    return _with_teacher_texts(config, context, stages)


def _own(config: RunConfig, stages: Stages, link: TeacherLink | None) -> RunContext:
    """The user's student, teacher and prompts; the two must share one tokenizer."""
    teachers = [str(teacher.model) for teacher in teachers_of(config)]
    with stages("checks", "looking at models, prompts, rewards and folders"):
        looked = preflight.check_own(config)
        tokenizer, splits = looked.tokenizer, looked.splits
    with stages("models", f"loading student {config.student.model} and teacher {', '.join(teachers)}"):
        student = load_student(config.student)
        check_head(student, "student", bias_allowed=True)
        end_at_either(student, [tokenizer, *(load_tokenizer(model, who="teacher") for model in teachers)])
        teacher = open_teachers(config, tokenizer, link)
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
        cache.put(
            TeacherOutput(keys[row], problems[row].prompt, tuple(texts[i * num_texts : (i + 1) * num_texts]))
            for i, row in enumerate(rows)
        )
    found = cache.get(keys)
    return [found[key].texts for key in keys]


def success_rates(problems: Sequence[Problem], texts: Sequence[str]) -> dict[str, float]:
    """The share of right texts per task, over those that could be graded."""
    grades = grade(problems, [Completion(text, [0], Finish.STOP) for text in texts])
    graded = [(problem.task, g) for problem, g in zip(problems, grades, strict=True) if g is not None]
    counts = Counter(task for task, _ in graded)
    return {task: sum(g for t, g in graded if t == task) / count for task, count in sorted(counts.items())}


def count_tokens(tokenizer: Any, texts: Sequence[str]) -> int:
    """Tokens of the texts, with an EOS each."""
    return sum(len(ids) + 1 for ids in tokenizer(list(texts))["input_ids"])
