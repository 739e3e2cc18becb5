"""The parts of a run put together: the trainer and what it needs, the export, the comparison at the end.

Each function is one stage of launch/ppo.py. Nothing here computes; it asks the parts that do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from reward_models import RewardBlend, RewardSpec

from . import distributed
from .config import RunConfig
from .config.sampling import mixture_shares
from .data.adaptive import make_sampler
from .evals.distributed import solve, solve_with
from .evals.evaluation import Evaluation, gap_recovered
from .evals.stored import store, stored
from .files import read_jsonl
from .models.actor_critic import ActorCritic, freeze_other_towers, make_critic
from .models.loading import save_to_use
from .models.lora import add_lora, merged
from .models.tokenizers import num_token_ids
from .ppo import checkpoint
from .ppo.anchor import make_coefficient
from .ppo.callbacks import BestAndPatience, CompletionLog, CriticWatch, TeacherCurriculumCallback
from .ppo.coefficients import Coefficient
from .ppo.hf_arguments import updates_per_step
from .ppo.lifecycle.alarms import Alarms
from .ppo.lifecycle.first_batch import FirstBatchPreview, StopWhereUnscored
from .ppo.lifecycle.interruption import SaveByTheClock
from .ppo.lifecycle.resume import CONFIG, PresentSettings
from .ppo.rollout import RolloutCollector
from .ppo.trainer import PPOTrainer
from .progress import Stages
from .provenance import versions
from .reporting.html import write as write_html
from .reporting.html.live import LiveReport
from .reporting.hub import push_to_hub, repo_of
from .reporting.model_card import write_model_card
from .reporting.sessions import Sessions
from .reporting.summary import sample_text, table, write_evaluations, write_report
from .reporting.training_log import MetricsWriter, PPOProgress
from .reward_model.refresh import RewardModelRefresh
from .run_setup import RunContext, teacher_evidence
from .stage_cache import cache_key
from .teachers.colocated import fingerprint
from .teachers.curriculum import TeacherCurriculum
from .timing import Phases, peak_memory_mib

BEFORE = "before.json"
STAGE_KEYS = {"teacher": "teacher", "student": "student_before"}


def run(config: RunConfig, context: RunContext, stages: Stages, command: str) -> dict[str, Any] | None:
    """A whole run from its context on; the results on the main process, None on the others and after SIGTERM."""
    problems, tokenizer = context.splits.test, context.tokenizer
    before = solve_before(config, context, stages)
    trainer = make_trainer(config, context, before)
    sessions = Sessions(Path(config.output_dir), stages, command, resumed=resumes(config) is not None)
    trainer.add_callback(sessions)
    with stages("ppo", f"{config.ppo.num_steps} steps of {config.ppo.batch_size} rollouts"):
        finished = train(config, trainer)
    sessions.write()
    if not finished:
        context.close()
        return None
    with trainer.gathered_weights():
        export(config, trainer, tokenizer)
        with stages("after", "the student solves the held-out problems again"):
            model: Any = trainer.model
            after = solve(model.policy, tokenizer, problems, config)
    context.close()
    sessions.write()
    if not distributed.is_main():
        return None
    return compare(config, context, before, after, trainer.spent(), sessions.summary())


def solve_before(config: RunConfig, context: RunContext, stages: Stages) -> dict[str, Evaluation]:
    """How "teacher" and "student" solve the test problems before the student trains; a resumed run reads it again."""
    problems, tokenizer = context.splits.test, context.tokenizer
    path, key = Path(config.output_dir) / BEFORE, before_key(config, context)
    kept = stored(path, key, problems) if resumes(config) is not None and distributed.is_main() else None
    kept = distributed.from_main(kept)
    if kept is not None:
        return kept
    with stages("before", f"teacher and student solve {len(problems)} held-out problems"):
        before = {
            "teacher": solve_with(context.teacher, tokenizer, problems, config),
            "student": solve(context.student, tokenizer, problems, config),
        }
    if distributed.is_main():
        store(path, key, before)
    return before


def before_key(config: RunConfig, context: RunContext) -> str:
    """What the evaluation before training depends on: both models' weights, the problems and how answers end."""
    if not distributed.is_main():
        return ""
    problems = [[problem.task, problem.prompt, problem.columns] for problem in context.splits.test]
    length, stop = config.generation.max_completion_length, config.generation.stop
    models = [context.teacher.fingerprint, fingerprint(context.student)]
    return cache_key(models=models, problems=problems, length=length, stop=stop)


def resumes(config: RunConfig) -> Path | None:
    """The checkpoint this run resumes from; every process must call this."""
    return checkpoint.find(Path(config.output_dir), config.resume_from_checkpoint)


def make_trainer(config: RunConfig, context: RunContext, before: Mapping[str, Evaluation] | None = None) -> PPOTrainer:
    """Policy, critic, rewards, anchor and callbacks wired into the PPO trainer.

    `before`: how "teacher" and "student" solved the test problems, for the report that is drawn while the run lasts.
    """
    torch.manual_seed(config.seed)
    output_dir, updates = Path(config.output_dir), updates_per_step(config)
    coefficient = make_coefficient(config, context.teacher_success)
    collector = make_collector(config, context, coefficient)
    critic = None
    if config.ppo.advantage == "gae":
        critic = make_critic(config.ppo.critic, context.student, context.teacher.hidden_size)
    refresh = make_refresh(config, context, collector)
    validation = Validation(config, context)
    curriculum = make_curriculum(config, context, coefficient, validation)
    parts: dict[str, checkpoint.Stateful] = {"anchor": coefficient, "rewards": collector.blend, "rollouts": collector}
    settings = PresentSettings(config)
    parts |= {CONFIG: settings, **refresh}
    if collector.sampler is not None:
        parts["sampling"] = collector.sampler
    if curriculum is not None:
        parts["teacher"] = curriculum.teacher
    policy = context.student
    freeze_other_towers(policy)
    if config.student.lora is not None:
        policy = add_lora(policy, config.student.lora, config.student.gradient_checkpointing)
    trainer = PPOTrainer(
        ActorCritic(policy, critic, num_tokens_vocab=num_token_ids(context.tokenizer)),
        config,
        collector,
        validate=validation,
        output_dir=output_dir,
        callbacks=[
            PPOProgress(config.ppo.num_steps, updates),
            MetricsWriter(output_dir, updates, collector.timing),
            BestAndPatience(config.evaluation.patience, config.evaluation.load_best),
            *refresh.values(),
            *([] if curriculum is None else [curriculum]),
            Alarms(config.alarms),
            CriticWatch(config.ppo.critic_warmup_steps, updates),
            CompletionLog(config.log_completions_every, updates, collector.latest),
            LiveReport(config, {STAGE_KEYS[name]: found.accuracy() for name, found in (before or {}).items()}, updates),
            settings,
            SaveByTheClock(config.checkpoint.every_minutes, updates),
            FirstBatchPreview(config, context.teacher, context.tokenizer, collector.latest),
            StopWhereUnscored(config.ppo.stop_at_unscored_steps, [spec.label for spec in collector.blend.specs]),
        ],
        parts=checkpoint.StatefulParts(**parts),
    )
    if config.generation.engine != "transformers":  # the engine asks the trainer's accelerator for its devices
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


def make_collector(config: RunConfig, context: RunContext, coefficient: Coefficient) -> RolloutCollector:
    blend = RewardBlend(
        [RewardSpec.from_config(entry) for entry in config.rewards],
        gather=distributed.gather_list if distributed.world_size() > 1 else None,
        seed=config.seed,
    )
    problems, tokenizer = context.splits.train, context.tokenizer
    collector = RolloutCollector(config, problems, tokenizer, context.teacher, blend, coefficient, Phases())
    number = config.ppo.batch_size // config.ppo.group_size
    data = config.data
    shares = mixture_shares(data.mixture, data.mixture_preset) if data.mixture else None
    tokens = None
    if data.share_by == "tokens":  # until answers were seen, half of the longest stands for one
        answer = config.generation.max_completion_length / 2
        tokens = [config.ppo.group_size * (len(ids) + answer) for ids in collector.prompt_ids]
    collector.sampler = make_sampler(problems, number, config.seed, config.sampling, shares, tokens)
    return collector


def make_refresh(config: RunConfig, context: RunContext, collector: RolloutCollector) -> dict[str, RewardModelRefresh]:
    """{"reward_model": what keeps it near the policy}; empty where the config does not ask for it."""
    if config.reward_refresh is None:
        return {}
    updates = updates_per_step(config)
    return {"reward_model": RewardModelRefresh(config, context, updates, collector.latest, collector.phases)}


def make_curriculum(
    config: RunConfig, context: RunContext, coefficient: Coefficient, validation: Validation
) -> TeacherCurriculumCallback | None:
    """What moves on to the next teacher; None unless the teachers follow one another."""
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
    resume = resumes(config)
    checkpoint.tidy(Path(config.output_dir), resume)
    if resume is not None:
        trainer.parts.load(resume)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    trainer.collector.blend.close()
    if trainer.interruption.stopped:
        return False
    if config.evaluation.load_best:
        trainer.load_best()
    return True


def export(config: RunConfig, trainer: PPOTrainer, tokenizer: PreTrainedTokenizerBase) -> Path:
    """The student alone, adapters merged, as an ordinary Hugging Face folder with its tokenizer.

    Adapters by themselves are kept in the folder `adapters` beside it, for peft or as `student.model` of another run.
    Under ZeRO-3 and FSDP to be called inside `trainer.gathered_weights()`.
    """
    folder = Path(config.output_dir) / "student"
    model = trainer.accelerator.unwrap_model(trainer.model)
    adapters, has_adapters = folder.with_name("adapters"), hasattr(model.policy, "peft_config")
    model.policy = merged(model.policy, adapters)
    if distributed.is_main():
        save_to_use(model.policy, tokenizer, folder)
        if has_adapters:
            tokenizer.save_pretrained(adapters)
    distributed.barrier()
    return folder


def compare(
    config: RunConfig,
    context: RunContext,
    before: dict[str, Evaluation],
    after: Evaluation,
    spent: dict[str, int],
    sessions: dict[str, Any],
) -> dict[str, Any]:
    """results.json and report.md of a finished run; returns the results and prints the final table.

    `sessions`: seconds and command over all sessions of the run, as Sessions.summary gives them.
    """
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
        **sessions,
        "peak_memory_mib": round(peak_memory_mib()),
        "ledger": context.ledger(**spent),
        "seed": config.seed,
        "config": config.to_dict(),
        "versions": versions(),
    }
    folder, command = Path(config.output_dir), sessions["command"]
    write_evaluations(folder, {"teacher": before["teacher"], "before": before["student"], "after": after})
    samples = sample_text(after, config.evaluation.num_samples_shown)
    write_report(folder, results, read_jsonl(folder / "metrics.jsonl"), samples, command)
    write_model_card(folder / "student", config, results, command)
    print("\n" + table(teacher, start, end, gap))
    if lost:
        print(f"\n{lost} of {len(after.grades)} answers could not be graded and count neither as right nor as wrong")
    print(f"\nreport: {write_html([folder])}   student: {folder / 'student'}")
    if config.push_to_hub:
        print(f"published: {push_to_hub(folder / 'student', repo_of(config), config.hub_private_repo)}")
    return results
