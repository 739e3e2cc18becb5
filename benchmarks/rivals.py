"""The simple rivals of reinforcement learning on the same context: more SFT, logit KD, SFT on teacher-labelled prompts.

    python benchmarks/rivals.py --arm more_sft --seed 0 --output_dir runs/ablation/more_sft-0 [settings]

Settings are those of launch/ppo.py, and so is the results.json it writes. Each arm trains on as many sequences as the
main job samples.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from rl_distill.config import RunConfig, SFTStageConfig
from rl_distill.config.command_line import parse

ARMS = ("more_sft", "logit_kd", "labelled_sft", "rejection_sft")
LEARNING_RATE = 5e-3


def stage_of(config: RunConfig) -> SFTStageConfig:
    """An SFT stage with as many sequences as the main job's rollouts."""
    num_sequences = config.ppo.num_steps * config.ppo.batch_size
    return SFTStageConfig(num_steps=num_sequences // 32, batch_size=32, learning_rate=LEARNING_RATE, warmup_steps=50)


def logit_kd(context: Any, pairs: list[tuple[str, str]], stage: SFTStageConfig, seed: int) -> None:
    """Forward KL(teacher || student) per token on the teacher's own outputs, full vocabulary (Hinton et al. 2015)."""
    import random

    import torch
    from torch.nn.functional import kl_div, log_softmax
    from transformers import get_cosine_schedule_with_warmup

    from rl_distill.distill.sft import MuonAdamW
    from rl_distill.maths.batching import token_batch
    from rl_distill.models.tokenizers import prompt_ids

    tokenizer, student, teacher = context.tokenizer, context.student.train(), context.teacher.model
    prompts = prompt_ids(tokenizer, [p for p, _ in pairs])
    texts = tokenizer([c for _, c in pairs], add_special_tokens=False)["input_ids"]
    outputs = [[*ids, tokenizer.eos_token_id] for ids in texts]
    optimizer = MuonAdamW(student, stage.learning_rate)
    schedule = get_cosine_schedule_with_warmup(optimizer, stage.warmup_steps, stage.num_steps)
    rng = random.Random(seed)
    for _ in range(stage.num_steps):
        rows = rng.sample(range(len(pairs)), stage.batch_size)
        batch = token_batch([prompts[r] for r in rows], [outputs[r] for r in rows], tokenizer.pad_token_id)
        with torch.no_grad():
            target_BLV = log_softmax(teacher(input_ids=batch.input_ids_BL).logits, -1)
        logits_BLV = log_softmax(student(input_ids=batch.input_ids_BL).logits, -1)
        target_NV = target_BLV.flatten(0, 1)[batch.state_index_N]
        loss = kl_div(logits_BLV.flatten(0, 1)[batch.state_index_N], target_NV, log_target=True, reduction="batchmean")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        context.teacher.tokens_scored += batch.input_ids_BL.numel()
    student.eval()


def run(arm: str, config: RunConfig) -> dict[str, Any]:
    """Trains the student of the arm's context and returns its results, in the form of the main job's."""
    from rl_distill import distributed, run_setup
    from rl_distill.distill.sft import fine_tune
    from rl_distill.evals.evaluation import evaluate, gap_recovered, grade
    from rl_distill.progress import Stages, quiet_libraries
    from rl_distill.provenance import versions
    from rl_distill.types import Completion, Finish

    quiet_libraries()
    distributed.set_threads(config.num_threads)
    stages = Stages()
    context = run_setup.prepare(config, stages, with_anchor=False)
    before = {
        "teacher": evaluate(context.teacher.model, context.tokenizer, context.splits.test, config).accuracy(),
        "student": evaluate(context.student, context.tokenizer, context.splits.test, config).accuracy(),
    }
    problems = context.splits.cold_start
    if arm in ("labelled_sft", "rejection_sft"):
        problems = problems + context.splits.train
    with stages("label", f"the teacher's outputs for {len(problems)} prompts"):
        texts = [t[0] for t in run_setup.teacher_texts(config, context.teacher, context.tokenizer, problems, 1)]
    context.teacher_tokens_generated = run_setup.count_tokens(context.tokenizer, texts)
    pairs = [(problem.prompt, text) for problem, text in zip(problems, texts, strict=True)]
    if arm == "rejection_sft":
        grades = grade(problems, [Completion(text, [0], Finish.STOP) for text in texts])
        pairs = [pair for pair, verdict in zip(pairs, grades, strict=True) if verdict]
    stage = stage_of(config)
    with stages("train", f"{arm}: {stage.num_steps} steps of {stage.batch_size} on {len(pairs)} outputs"):
        if arm == "logit_kd":
            logit_kd(context, pairs, stage, config.seed)
        else:
            work_dir = Path(config.output_dir) / "work"
            fine_tune(context.student, context.tokenizer, pairs, stage, seed=config.seed, work_dir=work_dir)
    after = evaluate(context.student.eval(), context.tokenizer, context.splits.test, config).accuracy()
    return {
        "teacher": before["teacher"],
        "student_before": before["student"],
        "student_after": after,
        "gap_recovered": gap_recovered(before["teacher"], before["student"], after),
        "wall_seconds": stages.seconds,
        "cpu_seconds": stages.cpu_seconds,
        "ledger": context.ledger(stage.num_steps * stage.batch_size, context.teacher.tokens_scored),
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
