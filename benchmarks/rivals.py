"""The simple rivals of reinforcement learning on the same context: more SFT, logit KD, SFT on teacher-labelled prompts,
expert iteration (benchmarks/expert_iteration.py).

    python benchmarks/rivals.py --arm more_sft --seed 0 --output_dir runs/ablation/more_sft-0 [settings]

Settings are those of launch/ppo.py, and so is the results.json it writes. Each arm trains on as many sequences as the
main job samples; expert iteration samples as many, too.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.expert_iteration import LEARNING_RATE, expert_iteration
from rl_distill.config import RunConfig, SFTStageConfig
from rl_distill.config.command_line import parse
from rl_distill.distill.sft import TrainingText

ARMS = ("more_sft", "logit_kd", "labelled_sft", "rejection_sft", "expert_iteration")


def stage_of(config: RunConfig) -> SFTStageConfig:
    """An SFT stage with as many sequences as the main job's rollouts."""
    num_sequences = config.ppo.num_steps * config.ppo.batch_size
    return SFTStageConfig(num_steps=num_sequences // 32, batch_size=32, learning_rate=LEARNING_RATE, warmup_steps=50)


def logit_kd(config: RunConfig, context: Any, texts: list[TrainingText], stage: SFTStageConfig) -> None:
    """Forward KL(teacher || student) per token on the teacher's own outputs, full vocabulary (Hinton et al. 2015)."""
    from rl_distill.config import DistillConfig, ScheduleConfig
    from rl_distill.distill.examples import Example
    from rl_distill.distill.sft import tokenized
    from rl_distill.distill.stage import wrap_student
    from rl_distill.distill.trainer import DistillationTrainer

    settings = DistillConfig(
        num_steps=stage.num_steps,
        batch_size=stage.batch_size,
        micro_batch_size=stage.batch_size,
        alpha=ScheduleConfig(0.0),
        learning_rate=stage.learning_rate,
        warmup_steps=stage.warmup_steps,
        evaluate_every_steps=stage.num_steps,
    )
    examples = []
    for row in tokenized(context.tokenizer, texts):
        start = sum(label == -100 for label in row["labels"])
        examples.append(Example("", row["input_ids"][:start], row["input_ids"][start:]))
    student = wrap_student(settings, context.student, context.teacher, len(context.tokenizer))
    folder = Path(config.output_dir) / "work"
    trainer = DistillationTrainer(student, config, settings, examples, context.teacher, context.tokenizer, folder)
    trainer.args.save_strategy = "no"
    trainer.train()
    context.student.eval()


def teacher_lessons(arm: str, config: RunConfig, context: Any) -> list[TrainingText]:
    """What the teacher wrote for the arm, by greedy decoding; the context's ledger then counts those tokens alone."""
    from rl_distill import run_setup
    from rl_distill.evals.evaluation import grade

    problems = context.splits.cold_start
    if arm in ("labelled_sft", "rejection_sft"):
        problems = problems + context.splits.train
    outputs = run_setup.teacher_outputs(config, context.teacher, context.tokenizer, problems, 1)
    context.teacher_tokens_generated = run_setup.count_tokens(context.tokenizer, [o.texts[0] for o in outputs])
    texts = [TrainingText(o.prompt, o.texts[0], o.finished[0]) for o in outputs]
    if arm == "rejection_sft":
        grades = grade(problems, [output.completions()[0] for output in outputs])
        texts = [text for text, verdict in zip(texts, grades, strict=True) if verdict]
    return texts


def train(arm: str, config: RunConfig, context: Any, texts: list[TrainingText]) -> dict[str, Any]:
    """Trains the context's student in place; what the results say of it beside the accuracies."""
    from rl_distill.distill.sft import fine_tune

    if arm == "expert_iteration":
        return {"rounds": expert_iteration(config, context, texts)}
    stage, work_dir = stage_of(config), Path(config.output_dir) / "work"
    if arm == "logit_kd":
        logit_kd(config, context, texts, stage)
    else:
        fine_tune(context.student, context.tokenizer, texts, stage, seed=config.seed, work_dir=work_dir)
    return {}


def run(arm: str, config: RunConfig) -> dict[str, Any]:
    """Trains the student of the arm's context and returns its results, in the form of the main job's."""
    from rl_distill import distributed, run_setup
    from rl_distill.evals.evaluation import evaluate, gap_recovered
    from rl_distill.progress import Stages, quiet_libraries
    from rl_distill.provenance import versions

    quiet_libraries()
    distributed.set_threads(config.num_threads)
    stages = Stages()
    context = run_setup.prepare(config, stages, with_anchor=False)
    tokenizer, problems = context.tokenizer, context.splits.test
    teacher = evaluate(context.teacher.model, tokenizer, problems, config).accuracy()
    before = evaluate(context.student, tokenizer, problems, config).accuracy()
    with stages("label", "the teacher's outputs"):
        texts = teacher_lessons(arm, config, context)
    num_sequences = config.ppo.num_steps * config.ppo.batch_size
    with stages("train", f"{arm}: {num_sequences} sequences, {len(texts)} of the teacher's outputs"):
        told = train(arm, config, context, texts)
    after = evaluate(context.student.eval(), tokenizer, problems, config).accuracy()
    return {
        "teacher": teacher,
        "student_before": before,
        "student_after": after,
        "gap_recovered": gap_recovered(teacher, before, after),
        "wall_seconds": stages.seconds,
        "cpu_seconds": stages.cpu_seconds,
        "ledger": context.ledger(num_sequences, context.teacher.tokens_scored),
        **told,
        "seed": config.seed,
        "config": replace(config).to_dict(),
        "versions": versions(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arm", choices=ARMS, required=True)
    arguments, rest = parser.parse_known_args()
    config = parse(rest)
    results = run(arguments.arm, config)
    (Path(config.output_dir) / "results.json").write_text(json.dumps(results, indent=2))
    print(json.dumps({k: results[k] for k in ("teacher", "student_before", "student_after")}))


if __name__ == "__main__":
    main()
