"""The stages that prepare a student for PPO: warm-up on the teacher's texts, and distillation.

Each is cached by what it was made from and resumes from its newest complete checkpoint, so the same command continues
after a kill. It may assume a run's context; it changes `context.student` and nothing else.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reward_models import RewardSpec

from . import distributed
from .config import ConfigError, DistillConfig, RunConfig
from .config.sampling import mixture_shares
from .data.mixture import PromptSampler
from .distill.examples import Example, ExampleOrder
from .distill.heldout import heldout_metrics
from .distill.stage import check_distillation, is_supervised, wrap_student
from .distill.teacher_cache import TeacherCache
from .distill.trainer import DistillationTrainer, pad_id
from .evals.distributed import solve
from .evals.evaluation import verdicts
from .models.loading import load, save_to_use
from .models.tokenizers import num_token_ids, prompt_ids
from .ppo import checkpoint
from .ppo.callbacks import BestAndPatience
from .progress import StageProgress, Stages
from .reporting.training_log import MetricsWriter
from .run_setup import RunContext, cache_dir_of, count_tokens, teacher_outputs
from .stage_cache import cache_key, cached
from .teachers.colocated import fingerprint
from .types import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def stages_of(config: RunConfig) -> dict[str, DistillConfig]:
    """The stages that the config asks for before PPO, in their order."""
    named = {"warm_up": config.warm_up, "distill": config.distill}
    return {name: settings for name, settings in named.items() if settings is not None}


def check_stages(config: RunConfig) -> None:
    """Raises ConfigError where a stage asks for what the run cannot give; to be called before models are loaded."""
    for settings in stages_of(config).values():
        check_distillation(config, settings)
        if config.student.lora is not None:
            raise ConfigError("warm_up and distill train the whole student: leave student.lora out or run them alone")


def prepare_student(config: RunConfig, context: RunContext, stages: Stages) -> None:
    """Runs the stages before PPO and puts their result into `context.student`."""
    for name, settings in stages_of(config).items():
        context.student = run_stage(name, config, settings, context, stages)


def run_stage(name: str, config: RunConfig, settings: DistillConfig, context: RunContext, stages: Stages) -> Any:
    """The student after one stage, from the cache if it was made before."""
    problems = prompts_of(config, settings, context)
    with stages(f"{name}_texts", f"{len(problems)} sequences to learn from ({settings.data})"):
        examples = sequences(config, settings, context, problems)
    heldout, train = examples[: settings.num_heldout], examples[settings.num_heldout :]
    if not train:
        raise ConfigError(
            f"{name}: {len(examples)} of {len(problems)} sequences are left and {settings.num_heldout} are held out: "
            f"raise {name}.num_prompts, lower {name}.num_heldout, or set {name}.only_verified to false"
        )
    key = _key(settings, config, context, train)

    def make(folder: Path) -> None:
        work = Path(config.output_dir) / f"{name}-{key}"
        trainer = make_trainer(config, settings, context, train, heldout, work)
        train_from_newest_checkpoint(trainer, work)
        with trainer.gathered_weights():
            save_to_use(trainer.student.policy, context.tokenizer, folder)

    with stages(name, f"{settings.num_steps} steps of {settings.batch_size} sequences"):
        folder = cached(cache_dir_of(config) / f"{name}-{key}", make)
    return load(folder, config.student.dtype)[0].to(distributed.device())


def prompts_of(config: RunConfig, settings: DistillConfig, context: RunContext) -> list[Problem]:
    """The prompts of a stage: those the teacher writes for, then training prompts; of a mixture distinct ones by its
    shares. A supervised stage has no use for free text, whose answers nothing checks."""
    mixture, train = config.data.mixture, context.splits.train
    if not mixture:
        return [*context.splits.cold_start, *train][: settings.num_prompts]
    quiet = free_text(config) if is_supervised(settings) else set()
    able = [problem for problem in train if problem.source not in quiet]
    shares = mixture_shares(mixture, config.data.mixture_preset)
    drawn = PromptSampler(able, settings.num_prompts, config.seed, shares).rows(0)
    return [able[row] for row in dict.fromkeys(drawn)]


def free_text(config: RunConfig) -> set[str]:
    """The entries of data.mixture without a check."""
    return {entry.label for entry in config.data.mixture or () if entry.anchor_only}


def sequences(
    config: RunConfig, settings: DistillConfig, context: RunContext, problems: Sequence[Problem]
) -> list[Example]:
    """What the stage learns from, in the order of the problems. Texts cut by length end without EOS."""
    quiet = free_text(config)
    if settings.data == "gold":
        lacking = sum(not problem.solution for problem in problems)
        if lacking:
            raise ConfigError(f"data: gold needs a solution, which {lacking} of {len(problems)} problems lack")
        return [_example(context.tokenizer, problem, problem.solution, True, quiet) for problem in problems]
    outputs = teacher_outputs(config, context.teacher, context.tokenizer, problems, 1)
    context.teacher_tokens_generated += count_tokens(context.tokenizer, [output.texts[0] for output in outputs])
    kept = [True] * len(problems)
    if settings.only_verified:
        specs = [RewardSpec.from_config(entry) for entry in config.rewards]
        found = verdicts(problems, [output.completions()[0] for output in outputs], specs)
        kept = [verdict == 1.0 or p.source in quiet for p, verdict in zip(problems, found, strict=True)]
    return [
        _example(context.tokenizer, problem, output.texts[0], output.finished[0], quiet)
        for problem, output, keep in zip(problems, outputs, kept, strict=True)
        if keep
    ]


def _example(
    tokenizer: PreTrainedTokenizerBase, problem: Problem, text: str, finished: bool, quiet: Container[str]
) -> Example:
    (prompt,) = prompt_ids(tokenizer, [problem.prompt])
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = [*ids, tokenizer.eos_token_id] if finished or not ids else ids
    return Example(problem.task, prompt, ids, problem.source, problem.source in quiet)


def make_trainer(
    config: RunConfig,
    settings: DistillConfig,
    context: RunContext,
    train: Sequence[Example],
    heldout: Sequence[Example],
    folder: Path,
) -> DistillationTrainer:
    """The trainer of a stage with its progress bar, metrics and complete checkpoints in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    teacher, cache = None if is_supervised(settings) else context.teacher, None
    if settings.cache != "none":
        cache = TeacherCache(cache_dir_of(config) / "teacher_logprobs", context.teacher, context.tokenizer, settings)
        cache.fill(train)
    trainer = DistillationTrainer(
        wrap_student(settings, context.student, context.teacher, num_token_ids(context.tokenizer)),
        config,
        settings,
        train,
        teacher,
        context.tokenizer,
        folder,
        evaluate_student=_heldout(config, context, heldout),
        callbacks=[
            StageProgress(folder.name.partition("-")[0]),
            MetricsWriter(folder, 1),
            BestAndPatience(settings.patience, save_best=False),
        ],
        cache=cache,
    )
    keep_best = settings.patience is not None
    trainer.add_callback(
        checkpoint.CompleteCheckpoints(stateful_parts(trainer), config.checkpoint.keep_last, keep_best=keep_best)
    )
    return trainer


def stateful_parts(trainer: DistillationTrainer) -> checkpoint.StatefulParts:
    """What a checkpoint of the stage holds beside Trainer's own."""
    return checkpoint.StatefulParts(**({} if trainer.guidance is None else {"guidance": trainer.guidance}))


def _heldout(config: RunConfig, context: RunContext, examples: Sequence[Example]) -> Callable[[Any], dict[str, float]]:
    def evaluate(policy: Any) -> dict[str, float]:
        near = heldout_metrics(
            policy,
            context.teacher,
            examples,
            pad_token_id=pad_id(context.tokenizer),
            num_tokens_vocab=num_token_ids(context.tokenizer),
        )
        solved = solve(policy, context.tokenizer, context.splits.validation, config).accuracy()
        return near | solved | {"accuracy": solved["overall"]}

    return evaluate


def train_from_newest_checkpoint(trainer: DistillationTrainer, folder: Path) -> None:
    """Trains the stage to its end, from its newest complete checkpoint if there is one."""
    resume = checkpoint.find(folder, "latest")
    if resume is not None:
        checkpoint.tidy(folder, resume)
        stateful_parts(trainer).load(resume)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    best = trainer.state.best_model_checkpoint
    if best is not None:  # with patience alone
        checkpoint.load_weights(trainer.student, Path(best))


def _key(settings: DistillConfig, config: RunConfig, context: RunContext, examples: Sequence[Example]) -> str:
    digest, data = hashlib.sha256(repr(list(examples)).encode()).hexdigest(), config.data
    return cache_key(
        settings=dataclasses.asdict(settings),
        generation=dataclasses.asdict(config.generation),
        seed=config.seed,
        student=fingerprint(context.student),
        teacher=context.teacher.fingerprint,
        examples=digest,
        bf16=config.ppo.bf16,
        autocast=config.teacher.autocast,
        processes=distributed.world_size(),
        **({"shares": mixture_shares(data.mixture, data.mixture_preset), "by": data.share_by} if data.mixture else {}),
    )


def spent(config: RunConfig, context: RunContext) -> dict[str, int]:
    """Sequences that the student sampled in the stages, and tokens that the teacher scored in this process."""
    orders = [(ExampleOrder(1, settings, config.seed), settings.num_steps) for settings in stages_of(config).values()]
    sampled = sum(row.on_policy for order, steps in orders for step in range(steps) for row in order.rows(step))
    return {"student_sequences": sampled, "teacher_tokens_scored": context.teacher.tokens_scored}


def export(config: RunConfig, context: RunContext) -> Path:
    """The student as an ordinary Hugging Face folder with its tokenizer, in `student` under output_dir."""
    folder = Path(config.output_dir) / "student"
    if distributed.is_main():
        save_to_use(context.student, context.tokenizer, folder)
    distributed.barrier()
    return folder
