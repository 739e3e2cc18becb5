"""What a run works with: problems by split, the teacher, the student before training, and their tokenizer.

Either the demo context, made and cached here, or the user's own models and prompts. Every stage is announced.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from reward_models import RewardSpec

from .. import distributed
from ..config import ConfigError, RunConfig, teachers_of
from ..data.teacher_prompts import as_teacher_sees, prompt_table
from ..demo.models import make_splits, student_folder, teacher_folder
from ..distill.sft import TrainingText
from ..distributed import TeacherLink
from ..evals.evaluation import grade, verdicts
from ..generation.sampling import Sampling, StopStrings, added_text, ending_ids
from ..models.heads import check_head
from ..models.loading import load, load_model, load_tokenizer, student_dtype
from ..models.tokenizers import prompt_ids
from ..ppo.anchor import follows_evidence
from ..ppo.coefficients import SuccessCount
from ..progress import Stages
from ..startup import preflight
from ..startup.chosen import keep_settings, tell_chosen
from ..teachers import Teacher
from ..teachers.http_api.text_api import TextAPI, messages_of
from ..teachers.multi_teacher import RoutedTeacher
from ..teachers.outputs import TeacherOutput, TeacherOutputCache, output_key
from ..teachers.placement import open_teacher, open_teachers
from ..teachers.prompted import PromptedTeacher
from ..types import Completion, Finish, Problem, Splits
from .evidence import evidence_problems, evidence_sample, success_counts, without_evidence
from .student_arch import cut_student, shape_of

TEXTS_PER_SHARD = 1024
"""Prompts per request to the teacher, which seeds the rows of a request by number: rows of two requests share draws."""
API_PROMPTS_PER_SHARD = 64
"""Prompts between two writes of what an API has answered: little is paid for twice after a crash."""


@dataclass
class RunContext:
    """`teacher_success`: how often the teacher's sampled answers are right, per task, where the anchor follows that."""

    splits: Splits
    teacher: Teacher
    student: Any
    tokenizer: Any
    teacher_success: dict[str, SuccessCount]
    teacher_tokens_generated: int
    link: TeacherLink | None = None
    """To the teacher's processes, where it has some."""

    def close(self) -> None:
        """Ends what the teacher keeps running; to be called by all student processes after the last request."""
        self.teacher.close()
        distributed.barrier()
        if self.link is not None and distributed.is_main():
            self.link.shutdown()

    def ledger(self, student_sequences: int, teacher_tokens_scored: int) -> dict[str, int]:
        """What the run spent: sequences the student sampled, tokens the teacher wrote and tokens it scored."""
        return {
            "student_sequences": student_sequences,
            "teacher_tokens_generated": self.teacher_tokens_generated,
            "teacher_tokens_scored": teacher_tokens_scored,
        }


def prepare(
    config: RunConfig, stages: Stages, link: TeacherLink | None = None, *, with_anchor: bool = True
) -> RunContext:
    """The context of the config; `link` connects to a dedicated teacher.

    `with_anchor` False spares the anchor's evidence, which only PPO needs. Raises ConfigError where models, tokenizers
    or data do not fit together.
    """
    shape_of(config)  # refused before anything is loaded
    context = (_own if config.demo is None else _demo_context)(config, stages, link)
    if with_anchor and follows_evidence(config):
        measure_evidence(config, context, stages)
    if with_anchor and config.anchor.prompts != "all":
        judge_teacher(config, context, stages)
    return _with_teacher_texts(config, context, stages)


def load_student(config: RunConfig) -> Any:
    """The student's weights; an adapter folder is trained further or merged, as the settings say."""
    settings, continues = config.student, config.student.adapter == "continue"
    return load_model(
        str(settings.model), student_dtype(config), settings.quantization, who="student", continue_adapter=continues
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
        outputs = teacher_outputs(config, teacher, tokenizer, splits.cold_start, 1)
        texts = [output.texts[0] for output in outputs]
    if config.student.arch is not None:
        answers = partial(teacher_outputs, config, teacher, tokenizer, num_texts=1)
        student_path = cut_student(config, stages, teacher, str(teacher_path), splits, answers)
    else:
        with stages("cold_start", "the student learns from those outputs"):
            lessons = cold_start_lessons(splits.cold_start, outputs, config.demo.only_verified)
            student_path = student_folder(config, config.demo, teacher_path, lessons, cache_dir, work_dir)
    student = load(student_path)[0].to(distributed.device())
    return RunContext(splits, teacher, student, tokenizer, {}, count_tokens(tokenizer, texts), link)


def cold_start_lessons(
    problems: Sequence[Problem], outputs: Sequence[TeacherOutput], only_verified: bool
) -> list[TrainingText]:
    """The teacher's first text for each problem, or those among them that pass the check; ConfigError where none do."""
    lessons = [TrainingText(output.prompt, output.texts[0], output.finished[0]) for output in outputs]
    if not only_verified:
        return lessons
    first = [output.completions()[0] for output in outputs]
    grades = distributed.from_main(grade(problems, first) if distributed.is_main() else None)
    kept = [lesson for lesson, verdict in zip(lessons, grades, strict=True) if verdict == 1.0]
    if not kept:
        raise ConfigError(
            f"demo.only_verified: none of the teacher's {len(lessons)} texts passes the check: raise "
            "demo.teacher_sft.num_steps or demo.num_teacher_outputs, or set demo.only_verified to false"
        )
    return kept


def _own(config: RunConfig, stages: Stages, link: TeacherLink | None) -> RunContext:
    """The user's student, teacher and prompts; the two must share one tokenizer."""
    teachers = [str(teacher.model) for teacher in teachers_of(config)]
    tell_chosen(config)
    with stages("checks", "looking at models, prompts, rewards and folders"):
        looked = preflight.check_own(config)
        tokenizer, splits = looked.tokenizer, looked.splits
        keep_settings(config)
    with stages("models", f"loading the teacher {', '.join(teachers)}"):
        teacher = under_own_prompts(config, open_teachers(config, tokenizer, link), splits, tokenizer)
    place = config.student.model
    if config.student.arch is not None:
        answers = partial(teacher_outputs, config, teacher, tokenizer, num_texts=1)
        place = str(cut_student(config, stages, teacher, teachers[0], splits, answers))
    with stages("student", f"loading the student {place}"):
        student = load_student(replace(config, student=replace(config.student, model=place)))
        check_head(student, "student", bias_allowed=True)
        end_at_either(student, [tokenizer, *(load_tokenizer(model, who="teacher") for model in teachers)])
        if isinstance(teacher, RoutedTeacher):
            teacher.shares([problem.task for problem in [*splits.train, *splits.validation, *splits.test]])
    if config.student.quantization is None:  # a quantized model is on its device and may not be moved
        student = student.to(distributed.device())
    return RunContext(splits, teacher, student, tokenizer, {}, 0, link)


def under_own_prompts(
    config: RunConfig, teacher: Teacher, splits: Splits, tokenizer: PreTrainedTokenizerBase
) -> Teacher:
    """The teacher under the prompts that teacher.prompt_template gives it; as it is where there is none."""
    if config.teacher.prompt_template is None:
        return teacher
    problems = [*splits.cold_start, *splits.train, *splits.validation, *splits.test]
    return PromptedTeacher(teacher, prompt_table(config.teacher.prompt_template, config.data, problems, tokenizer))


def measure_evidence(config: RunConfig, context: RunContext, stages: Stages) -> None:
    """Sets the context's `teacher_success`; one warning about tasks without any."""
    with stages("evidence", "the teacher samples answers, as the student will"):
        context.teacher_success = teacher_evidence(config, context)
    without = sorted({problem.task for problem in context.splits.train} - set(context.teacher_success))
    if without and distributed.is_main():
        warnings.warn(without_evidence(without, config.anchor.coef, bool(context.teacher_success)), stacklevel=2)


def judge_teacher(config: RunConfig, context: RunContext, stages: Stages) -> None:
    """Sets `teacher_right` of the training problems: whether one answer of the teacher, sampled as rollouts are, passes
    the run's own verifying rewards; None without a verdict. Every prompt costs a teacher's text, kept in the cache.
    """
    problems, specs = context.splits.train, [RewardSpec.from_config(entry) for entry in config.rewards]
    with stages("teacher_answers", f"the teacher answers {len(problems)} training prompts, to know where it is right"):
        sampling = as_rollouts(config)
        outputs = teacher_outputs(config, context.teacher, context.tokenizer, problems, 1, sampling)
        completions = [output.completions()[0] for output in outputs]
        found = distributed.from_main(verdicts(problems, completions, specs) if distributed.is_main() else None)
    context.teacher_tokens_generated += count_tokens(context.tokenizer, [output.texts[0] for output in outputs])
    right = [None if verdict is None else verdict == 1.0 for verdict in found]
    train = [replace(problem, teacher_right=known) for problem, known in zip(problems, right, strict=True)]
    context.splits = replace(context.splits, train=train)


def teacher_evidence(config: RunConfig, context: RunContext) -> dict[str, SuccessCount]:
    """How often the present teacher's sampled answers are right, per task, by the run's own verifying rewards.

    Sampled and checked as rollouts are. A prompt counts as one trial, with the mean of its answers: several answers to
    one prompt are no independent trials. Prompts are those the teacher writes for anyway, else training prompts.
    """
    specs = [RewardSpec.from_config(entry) for entry in config.rewards]
    problems = evidence_problems(context.splits)
    main = distributed.is_main()  # a grader in trouble must not leave processes with different evidence
    sample: list[Problem] = distributed.from_main(evidence_sample(config, problems, specs) if main else None)
    number, sampling = config.teacher.num_evidence_samples, as_rollouts(config)
    outputs = teacher_outputs(config, context.teacher, context.tokenizer, sample, number, sampling)
    context.teacher_tokens_generated += sum(count_tokens(context.tokenizer, output.texts) for output in outputs)
    return distributed.from_main(success_counts(sample, outputs, specs) if main else None)


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


def as_rollouts(config: RunConfig) -> Sampling:
    """How rollouts are sampled, at the temperature of the first step."""
    settings = config.generation
    return Sampling(settings.max_completion_length, settings.temperature, settings.top_p)


def teacher_texts(
    config: RunConfig, teacher: Teacher, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem], num_texts: int
) -> list[tuple[str, ...]]:
    """The texts of `teacher_outputs`."""
    return [output.texts for output in teacher_outputs(config, teacher, tokenizer, problems, num_texts)]


def teacher_outputs(
    config: RunConfig,
    teacher: Teacher,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    num_texts: int,
    sampling: Sampling | None = None,
) -> list[TeacherOutput]:
    """`num_texts` texts per problem, from the cache where it has them; they end at stop strings, as rollouts do.

    `sampling` None: greedy for one text, as rollouts for several; an API of teacher.text_api writes these. Texts are
    stored as they come, so that an interrupted run continues where it stopped.
    """
    if sampling is None and config.teacher.text_api is not None:
        return api_outputs(config, TextAPI(config.teacher.text_api), tokenizer, problems, num_texts)
    stop = StopStrings.of(tokenizer, config.generation.stop)
    if sampling is None:
        sampling = as_rollouts(config)
        sampling = replace(sampling, temperature=0.0, top_p=1.0) if num_texts == 1 else sampling
    cache = TeacherOutputCache(cache_dir_of(config) / "teacher_texts")
    how = {"num_texts": num_texts, **vars(sampling)} | ({} if stop is None else {"stop": stop.texts})
    keys = [output_key(teacher.fingerprint, problem.prompt, how) for problem in problems]
    found = cache.get(keys)
    missing = [row for row, key in enumerate(keys) if key not in found]
    shards = range(0, len(missing), TEXTS_PER_SHARD)
    for start in tqdm(shards, desc="teacher texts", unit="shard", disable=len(shards) < 2 or not distributed.is_main()):
        rows = missing[start : start + TEXTS_PER_SHARD]
        wanted = [problems[row] for row in rows for _ in range(num_texts)]
        written = _written(teacher, tokenizer, wanted, sampling, stop)
        pieces = [written[i * num_texts : (i + 1) * num_texts] for i in range(len(rows))]
        cache.put(
            TeacherOutput(keys[row], problems[row].prompt, tuple(c.text for c in piece), tuple(map(finished, piece)))
            for row, piece in zip(rows, pieces, strict=True)
        )
    found = cache.get(keys)
    return [found[key] for key in keys]


def api_outputs(
    config: RunConfig, api: TextAPI, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem], num_texts: int
) -> list[TeacherOutput]:
    """`teacher_outputs` by an API, which the main process alone asks."""
    template, stop = config.teacher.prompt_template, list(config.generation.stop)
    seen = problems if template is None else as_teacher_sees(template, config.data, problems, tokenizer)
    sampling = as_rollouts(config)
    sampling = replace(sampling, temperature=0.0, top_p=1.0) if num_texts == 1 else sampling
    how: dict[str, Any] = {"max_tokens": sampling.max_new_tokens, "temperature": sampling.temperature}
    how["top_p"] = sampling.top_p
    settings = how | {"num_texts": num_texts, "stop": stop}
    keys = [output_key(api.fingerprint, messages_of(problem), settings) for problem in seen]
    cache = TeacherOutputCache(cache_dir_of(config) / "teacher_texts")
    found = cache.get(keys) if distributed.is_main() else {}
    missing = [row for row, key in enumerate(keys) if key not in found] if distributed.is_main() else []
    for start in tqdm(range(0, len(missing), API_PROMPTS_PER_SHARD), desc="teacher texts", unit="shard", disable=None):
        rows = missing[start : start + API_PROMPTS_PER_SHARD]
        written = api.write([seen[row] for row in rows for _ in range(num_texts)], **how, stop=stop)
        pieces = [written[i * num_texts : (i + 1) * num_texts] for i in range(len(rows))]
        cache.put(
            TeacherOutput(keys[row], seen[row].prompt, tuple(w.text for w in piece), tuple(w.finished for w in piece))
            for row, piece in zip(rows, pieces, strict=True)
        )
    if missing:
        counted = f"{api.prompt_tokens:,} prompt and {api.completion_tokens:,} completion tokens"
        print(f"teacher.text_api: {len(missing) * num_texts} texts, {counted} by its own count", flush=True)
    distributed.barrier()  # the others read what the main process has stored
    found = cache.get(keys)
    return [found[key] for key in keys]


def _written(
    teacher: Teacher,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    sampling: Sampling,
    stop: StopStrings | None,
) -> list[Completion]:
    ids = prompt_ids(tokenizer, [problem.prompt for problem in problems])
    generated = teacher.generate(ids, sampling, tasks=[problem.task for problem in problems])
    if stop is not None:
        generated = [stop.ended(item) for item in generated]
    return [
        Completion(added_text(tokenizer, row, item.token_ids), item.token_ids, item.finish)
        for row, item in zip(ids, generated, strict=True)
    ]


def finished(completion: Completion) -> bool:
    """True where it ended by EOS or a stop string, not by the length limit."""
    return completion.finish is Finish.STOP


def count_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> int:
    """Tokens of the texts, with an EOS each."""
    return sum(len(ids) + 1 for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"])
