"""The parts of a run put together: the trainer and what it needs, the export, the comparison at the end.

Each function is one stage of launch/ppo.py. Nothing here computes; it asks the parts that do.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from reward_models import RewardBlend, RewardSpec

from . import distributed
from .config import RunConfig
from .evals.distributed import solve, solve_with
from .evals.evaluation import Evaluation, gap_recovered
from .files import read_jsonl
from .models.actor_critic import ActorCritic, freeze_other_towers, make_critic
from .models.lora import add_lora, merged
from .models.tokenizers import num_token_ids
from .ppo import checkpoint
from .ppo.anchor import make_coefficient
from .ppo.callbacks import BestAndPatience, CompletionLog, CriticWatch, TeacherCurriculumCallback
from .ppo.coefficients import Coefficient
from .ppo.hf_arguments import updates_per_step
from .ppo.lifecycle.first_batch import FirstBatchPreview, StopWhereUnscored
from .ppo.lifecycle.interruption import SaveByTheClock
from .ppo.lifecycle.resume import CONFIG, PresentSettings
from .ppo.rollout import RolloutCollector
from .ppo.trainer import PPOTrainer
from .progress import Stages
from .provenance import versions
from .reporting.summary import sample_text, table, write_evaluations, write_report
from .reporting.training_log import MetricsWriter, PPOProgress
from .reward_model.refresh import RewardModelRefresh
from .run_setup import RunContext, teacher_evidence
from .teachers.curriculum import TeacherCurriculum
from .timing import Phases, peak_memory_mib


def make_trainer(config: RunConfig, context: RunContext) -> PPOTrainer:
    """Policy, critic, rewards, anchor and callbacks wired into the PPO trainer."""
    torch.manual_seed(config.seed)
    output_dir = Path(config.output_dir)
    critic = None
    if config.ppo.advantage == "gae":
        critic = make_critic(config.ppo.critic, context.student, context.teacher.hidden_size)
    phases, updates = Phases(), updates_per_step(config)
    refresh = None
    if config.reward_refresh is not None:
        refresh = RewardModelRefresh(config, context, updates, lambda: trainer.last_rollout, phases)
    policy = context.student
    freeze_other_towers(policy)
    if config.student.lora is not None:
        policy = add_lora(policy, config.student.lora, config.student.gradient_checkpointing)
    model = ActorCritic(policy, critic, num_tokens_vocab=num_token_ids(context.tokenizer))
    blend = RewardBlend(
        [RewardSpec.from_config(entry) for entry in config.rewards],
        gather=distributed.gather_list if distributed.world_size() > 1 else None,
        seed=config.seed,
    )
    coefficient = make_coefficient(config, context.teacher_success)
    collector = RolloutCollector(
        config, context.splits.train, context.tokenizer, context.teacher, blend, coefficient, phases
    )
    writer, validation = MetricsWriter(output_dir, updates), Validation(config, context)
    curriculum = make_next_teacher(config, context, coefficient, validation)
    has_state: dict[str, Any] = {"anchor": coefficient, "rewards": blend, "rollouts": collector}
    if curriculum is not None:
        has_state["teacher"] = curriculum.teacher
    trainer = PPOTrainer(
        model,
        config,
        collector,
        validate=validation,
        output_dir=output_dir,
        callbacks=[
            PPOProgress(config.ppo.num_steps, updates),
            writer,
            BestAndPatience(config.evaluation.patience, config.evaluation.load_best),
            *([] if refresh is None else [refresh]),
            *([] if curriculum is None else [curriculum]),
            CriticWatch(config.ppo.critic_warmup_steps, updates),
            checkpoint.CompleteCheckpoints(
                lambda: {name: part.state_dict() for name, part in has_state.items()} | {CONFIG: config.to_dict()},
                config.checkpoint.keep_last,
                keep_best=config.evaluation.load_best,
            ),
        ],
    )
    trainer.present_settings = PresentSettings(config)
    trainer.add_callback(trainer.present_settings)
    trainer.add_callback(SaveByTheClock(config.checkpoint.every_minutes, updates))
    trainer.add_callback(FirstBatchPreview(config, context.teacher, context.tokenizer, lambda: trainer.last_rollout))
    trainer.add_callback(StopWhereUnscored(config.ppo.stop_at_unscored_steps, [spec.label for spec in blend.specs]))
    writer.timing = trainer.timing
    trainer.refresh, trainer.curriculum = refresh, curriculum
    if config.log_completions_every is not None:
        trainer.add_callback(CompletionLog(config.log_completions_every, updates, lambda: trainer.last_rollout))
    if config.generation.engine != "transformers":
        from .generation.vllm import make_vllm_engine

        collector.engine = make_vllm_engine(config, policy, trainer.accelerator, context.tokenizer)
    return trainer


class Validation:
    """The student's accuracy on the validation problems, by task and "overall"; `grades` are those of the last time."""

    def __init__(self, config: RunConfig, context: RunContext) -> None:
        self.config, self.context = config, context
        self.grades: list[float | None] = []

    def __call__(self, trained: ActorCritic) -> dict[str, float]:
        solved = solve(trained.policy, self.context.tokenizer, self.context.splits.validation, self.config)
        self.grades = solved.grades
        return solved.accuracy()


def make_next_teacher(
    config: RunConfig, context: RunContext, coefficient: Coefficient, validation: Validation
) -> TeacherCurriculumCallback | None:
    """What moves on to the next teacher, where the config has teachers that follow one another."""
    teacher = context.teacher
    if not isinstance(teacher, TeacherCurriculum):
        return None
    problems = context.splits.validation
    return TeacherCurriculumCallback(
        teacher,
        coefficient,
        grades=lambda: validation.grades,
        measure=lambda: solve_with(teacher, context.tokenizer, problems, config).grades,
        evidence=lambda: teacher_evidence(config, context),
    )


def train(config: RunConfig, trainer: PPOTrainer) -> bool:
    """Trains from the start, or from the newest complete checkpoint where the config asks for it.

    False where SIGTERM or Ctrl-C ended it early, with a checkpoint.
    """
    resume = checkpoint.find(Path(config.output_dir), config.resume_from_checkpoint)
    checkpoint.tidy(Path(config.output_dir), resume)
    if resume is not None:
        state = checkpoint.read_state(resume)
        trainer.present_settings.saved = state.get(CONFIG)
        trainer.collector.coefficient.load_state_dict(state["anchor"])
        trainer.collector.blend.load_state_dict(state["rewards"])
        trainer.collector.load_state_dict(state["rollouts"])
        if trainer.refresh is not None:
            trainer.refresh.load(resume)
        if trainer.curriculum is not None:
            trainer.curriculum.teacher.load_state_dict(state["teacher"])
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    trainer.collector.blend.close()
    if trainer.interruption.stopped:
        return False
    if config.evaluation.load_best:
        trainer.load_best()
    return True


def export(config: RunConfig, trainer: PPOTrainer, tokenizer: Any) -> Path:
    """The student alone, adapters merged, as an ordinary Hugging Face folder with its tokenizer.

    Under ZeRO-3 and FSDP to be called inside `trainer.gathered_weights()`.
    """
    folder = Path(config.output_dir) / "student"
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.policy = merged(model.policy, folder.with_name("adapters"))
    if distributed.is_main():
        model.policy.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    distributed.barrier()
    return folder


def compare(
    config: RunConfig,
    context: RunContext,
    before: dict[str, Evaluation],
    after: Evaluation,
    spent: dict[str, int],
    stages: Stages,
    command: str,
) -> dict[str, Any]:
    """results.json and report.md of a finished run; returns the results and prints the final table."""
    teacher, start, end = before["teacher"].accuracy(), before["student"].accuracy(), after.accuracy()
    ungraded = {"teacher": before["teacher"].num_ungraded, "student_before": before["student"].num_ungraded}
    ungraded["student_after"] = lost = after.num_ungraded
    gap = gap_recovered(teacher, start, end)
    results: dict[str, Any] = {
        "teacher": teacher,
        "student_before": start,
        "student_after": end,
        "gap_recovered": gap,
        "num_test": len(context.splits.test),
        "num_ungraded": ungraded,
        "standard_error": math.sqrt(end["overall"] * (1 - end["overall"]) / max(1, len(after.grades) - lost)),
        "wall_seconds": dict(stages.seconds),
        "cpu_seconds": dict(stages.cpu_seconds),
        "peak_memory_mib": round(peak_memory_mib()),
        "ledger": context.ledger(**spent),
        "seed": config.seed,
        "config": config.to_dict(),
        "versions": versions(),
    }
    folder = Path(config.output_dir)
    write_evaluations(folder, {"teacher": before["teacher"], "before": before["student"], "after": after})
    samples = sample_text(after, config.evaluation.num_samples_shown)
    write_report(folder, results, read_jsonl(folder / "metrics.jsonl"), samples, command)
    print("\n" + table(teacher, start, end, gap))
    if lost:
        print(f"\n{lost} of {len(after.grades)} answers could not be graded and count neither as right nor as wrong")
    print(f"\nreport: {folder / 'report.md'}   student: {folder / 'student'}")
    return results
