"""The parts of a run put together: problems and models, the trainer, the comparison at the end.

Each function is one stage of launch/ppo.py. Nothing here computes; it asks the parts that do.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reward_models import RewardBlend, RewardSpec

from . import checkpoint, distributed
from .config import RunConfig
from .evaluation import Evaluation, evaluate, gap_recovered
from .generation import Sampling
from .models.actor_critic import ActorCritic, make_critic
from .models.embedded import Splits, cache_key, cached, load, make_splits, student_folder, teacher_folder
from .reporting import (
    MetricsWriter,
    PPOProgress,
    Stages,
    read_jsonl,
    sample_text,
    table,
    versions,
    write_atomically,
    write_report,
)
from .rollout import RolloutCollector
from .teachers.shared import SharedTeacher
from .timing import Phases, peak_memory_mib
from .trainer import PPOTrainer, make_coefficient, updates_per_step
from .types import Completion, Problem


@dataclass
class World:
    """What a run works with: problems by split, the teacher, the student before training, and their tokenizer."""

    splits: Splits
    teacher: SharedTeacher
    student: Any
    tokenizer: Any
    teacher_success: dict[str, float]
    """The teacher's verified rate per task on the prompts it wrote for; what the anchor's evidence compares with."""
    teacher_tokens_generated: int

    def ledger(self, student_sequences: int) -> dict[str, int]:
        """What the run spent: sequences the student sampled, tokens the teacher wrote and tokens it scored."""
        return {
            "student_sequences": student_sequences,
            "teacher_tokens_generated": self.teacher_tokens_generated,
            "teacher_tokens_scored": self.teacher.tokens_scored,
        }


def prepare(config: RunConfig, stages: Stages) -> World:
    """The embedded world: teacher, its budget of outputs, the student after its cold start; cached ones are reused."""
    assert config.embedded is not None
    output_dir = Path(config.output_dir)
    cache_dir = Path(config.cache_dir or output_dir / "cache")
    work_dir = output_dir / "work"
    splits = make_splits(config.embedded, config.seed)
    with stages("teacher", "the teacher learns from reference solutions"):
        teacher_path = teacher_folder(config, config.embedded, cache_dir, work_dir)
    model, tokenizer = load(teacher_path)
    teacher = make_teacher(config, model, tokenizer)
    with stages("outputs", f"the teacher writes {len(splits.cold_start)} outputs"):
        outputs = teacher_outputs(config, teacher, tokenizer, splits.cold_start, teacher_path, cache_dir)
    with stages("cold_start", "the student learns from those outputs"):
        pairs = [(problem.prompt, text) for problem, (text, _) in zip(splits.cold_start, outputs, strict=True)]
        student_path = student_folder(config, config.embedded, teacher_path, pairs, cache_dir, work_dir)
    student, _ = load(student_path)
    num_tokens = sum(len(ids) + 1 for ids in tokenizer([text for text, _ in outputs])["input_ids"])
    rates = success_rates(splits.cold_start, [grade for _, grade in outputs])
    return World(splits, teacher, student, tokenizer, rates, num_tokens)


def make_teacher(config: RunConfig, model: Any, tokenizer: Any) -> SharedTeacher:
    """The teacher in this process, scoring at the temperature of the rollouts."""
    wanted = config.teacher.autocast
    return SharedTeacher(
        model,
        eos_token_ids=[tokenizer.eos_token_id],
        pad_token_id=tokenizer.pad_token_id,
        temperature=config.generation.temperature,
        micro_batch_size=config.teacher.micro_batch_size,
        autocast=wanted == "on" or (wanted == "auto" and distributed.fast_bf16(model.device)),
        num_tokens_vocab=len(tokenizer),
    )


def teacher_outputs(
    config: RunConfig,
    teacher: SharedTeacher,
    tokenizer: Any,
    problems: list[Problem],
    teacher_path: Path,
    cache_dir: Path,
) -> list[tuple[str, float | None]]:
    """The teacher's greedy text on each problem and its verdict, cached; greedy text is the teacher at its best."""
    import json

    from .evaluation import grade

    length = config.generation.max_completion_length
    key = cache_key(teacher=teacher_path.name, prompts=[problem.prompt for problem in problems], length=length)

    def make(folder: Path) -> None:
        prompt_ids = [tokenizer(problem.prompt, add_special_tokens=False)["input_ids"] for problem in problems]
        generated = teacher.generate(prompt_ids, Sampling(length, temperature=0.0))
        completions = [
            Completion(tokenizer.decode(g.token_ids, skip_special_tokens=True), g.token_ids, g.finish)
            for g in generated
        ]
        grades = grade(problems, completions)
        rows = [{"text": c.text, "grade": g} for c, g in zip(completions, grades, strict=True)]
        write_atomically(folder / "outputs.json", json.dumps(rows))

    rows = json.loads((cached(cache_dir / f"outputs-{key}", make) / "outputs.json").read_text())
    return [(row["text"], row["grade"]) for row in rows]


def success_rates(problems: list[Problem], grades: list[float | None]) -> dict[str, float]:
    """The share of right answers per task, over those that were graded."""
    graded = [(problem.task, grade) for problem, grade in zip(problems, grades, strict=True) if grade is not None]
    counts = Counter(task for task, _ in graded)
    return {task: sum(g for t, g in graded if t == task) / count for task, count in sorted(counts.items())}


def make_trainer(config: RunConfig, world: World) -> PPOTrainer:
    """Policy, critic, rewards, anchor and callbacks wired into the PPO trainer."""
    torch.manual_seed(config.seed)
    output_dir = Path(config.output_dir)
    critic = None
    if config.ppo.advantage == "gae":
        critic = make_critic(config.ppo.critic, world.student, world.teacher.hidden_size)
    model = ActorCritic(world.student, critic, num_tokens_vocab=len(world.tokenizer))
    blend = RewardBlend(
        [RewardSpec.from_config(entry) for entry in config.rewards],
        gather=distributed.gather_list if distributed.world_size() > 1 else None,
        seed=config.seed,
    )
    coefficient = make_coefficient(config, world.teacher_success)
    collector = RolloutCollector(
        config, world.splits.train, world.tokenizer, world.teacher, blend, coefficient, Phases()
    )
    writer = MetricsWriter(output_dir, updates_per_step(config))
    trainer = PPOTrainer(
        model,
        config,
        collector,
        validate=lambda trained: evaluate(trained.policy, world.tokenizer, world.splits.validation, config).accuracy(),
        output_dir=output_dir,
        callbacks=[
            PPOProgress(config.ppo.num_steps, updates_per_step(config)),
            writer,
            checkpoint.CompleteCheckpoints(lambda: {"anchor": coefficient.state_dict(), "rewards": blend.state_dict()}),
        ],
    )
    writer.timing = trainer.timing
    return trainer


def train(config: RunConfig, trainer: PPOTrainer) -> None:
    """Trains from the start, or from the newest complete checkpoint where the config asks for it."""
    resume = checkpoint.find(Path(config.output_dir), config.resume_from_checkpoint)
    if resume is not None:
        state = checkpoint.read_state(resume)
        trainer.collector.coefficient.load_state_dict(state["anchor"])
        trainer.collector.blend.load_state_dict(state["rewards"])
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    trainer.collector.blend.close()


def export(config: RunConfig, trainer: PPOTrainer, tokenizer: Any) -> Path:
    """The student alone, as an ordinary Hugging Face folder with its tokenizer."""
    folder = Path(config.output_dir) / "student"
    policy = trainer.accelerator.unwrap_model(trainer.model).policy
    policy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def compare(
    config: RunConfig, world: World, before: dict[str, Evaluation], after: Evaluation, stages: Stages, command: str
) -> dict[str, Any]:
    """results.json and report.md of a finished run; returns the results and prints the final table."""
    teacher, start, end = before["teacher"].accuracy(), before["student"].accuracy(), after.accuracy()
    results = {
        "teacher": teacher,
        "student_before": start,
        "student_after": end,
        "gap_recovered": gap_recovered(teacher, start, end),
        "num_test": len(world.splits.test),
        "standard_error": math.sqrt(end["overall"] * (1 - end["overall"]) / len(world.splits.test)),
        "wall_seconds": dict(stages.seconds),
        "cpu_seconds": dict(stages.cpu_seconds),
        "peak_memory_mib": round(peak_memory_mib()),
        "ledger": world.ledger(config.ppo.num_steps * config.ppo.batch_size),
        "seed": config.seed,
        "config": config.to_dict(),
        "versions": versions(),
    }
    folder = Path(config.output_dir)
    samples = sample_text(after, config.evaluation.num_samples_shown)
    write_report(folder, results, read_jsonl(folder / "metrics.jsonl"), samples, command)
    print("\n" + table(teacher, start, end, results["gap_recovered"]))
    print(f"\nreport: {folder / 'report.md'}   student: {folder / 'student'}")
    return results
