"""Expert iteration: the student samples, what passes the check becomes its lesson, and so on. No teacher takes part.

Rounds of equal size: sample each prompt once, keep the verified completions, then SFT on everything verified so far and
the teacher's texts of the cold start. Every round takes as many SFT sequences as it sampled. Anthony et al. 2017,
"Thinking Fast and Slow with Deep Learning and Tree Search"; on language models STaR (Zelikman et al. 2022) and ReST-EM
(Singh et al. 2023), which begin each round from the first model while this one goes on from the last.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rl_distill.config import RunConfig, SFTStageConfig
from rl_distill.distill.sft import TrainingText
from rl_distill.types import Finish, Problem

NUM_ROUNDS = 7
BATCH_SIZE = 32
LEARNING_RATE = 5e-3
WARMUP_SHARE = 0.1
"""Of a round's SFT steps."""


def round_sizes(num_sequences: int) -> list[int]:
    """Samples of each round; they sum to `num_sequences` and differ by at most one."""
    whole, rest = divmod(num_sequences, NUM_ROUNDS)
    return [whole + (number < rest) for number in range(NUM_ROUNDS)]


def stage_of(num_samples: int) -> SFTStageConfig:
    """The SFT after a round: as many sequences as the round sampled, in batches of BATCH_SIZE."""
    num_steps = max(1, round(num_samples / BATCH_SIZE))
    warmup_steps = round(WARMUP_SHARE * num_steps)
    return SFTStageConfig(num_steps, BATCH_SIZE, learning_rate=LEARNING_RATE, warmup_steps=warmup_steps)


def drawn(problems: Sequence[Problem], first: int, number: int, seed: int) -> list[Problem]:
    """`number` problems from place `first` on of the shuffled passes over all of them, as PPO draws its prompts."""
    passes: dict[int, list[int]] = {}
    chosen = []
    for place in range(first, first + number):
        epoch, i = divmod(place, len(problems))
        if epoch not in passes:
            passes[epoch] = list(range(len(problems)))
            random.Random(f"{seed}:prompts:{epoch}").shuffle(passes[epoch])
        chosen.append(problems[passes[epoch][i]])
    return chosen


def verified_samples(config: RunConfig, context: Any, problems: Sequence[Problem], name: str) -> list[TrainingText]:
    """One completion of the student per problem, sampled as rollouts are; those that pass the check."""
    from rl_distill.evals.evaluation import grade
    from rl_distill.generation.sampling import StopStrings, TransformersEngine, added_text
    from rl_distill.models.tokenizers import prompt_ids
    from rl_distill.run_setup import as_rollouts
    from rl_distill.types import Completion

    tokenizer, settings = context.tokenizer, config.generation
    engine = TransformersEngine(tokenizer, settings.batch_size, StopStrings.of(tokenizer, settings.stop))
    ids = prompt_ids(tokenizer, [problem.prompt for problem in problems])
    rng = random.Random(f"{config.seed}:{name}")
    generated = engine.generate(
        context.student.eval(), ids, as_rollouts(config), [rng.getrandbits(62) for _ in problems]
    )
    texts = [added_text(tokenizer, row, item.token_ids) for row, item in zip(ids, generated, strict=True)]
    completions = [Completion(text, item.token_ids, item.finish) for text, item in zip(texts, generated, strict=True)]
    grades = grade(problems, completions)
    return [
        TrainingText(problem.prompt, completion.text, completion.finish is Finish.STOP)
        for problem, completion, verdict in zip(problems, completions, grades, strict=True)
        if verdict == 1.0
    ]


def expert_iteration(config: RunConfig, context: Any, teacher_texts: Sequence[TrainingText]) -> list[dict[str, int]]:
    """Trains the context's student in place; per round the completions sampled, those that passed, and all lessons."""
    from rl_distill.distill.sft import fine_tune

    lessons, rounds, first = list(teacher_texts), [], 0
    work_dir = Path(config.output_dir) / "work"
    for number, size in enumerate(round_sizes(config.ppo.num_steps * config.ppo.batch_size)):
        name = f"expert_iteration:{number}"
        verified = verified_samples(config, context, drawn(context.splits.train, first, size, config.seed), name)
        lessons, first = lessons + verified, first + size
        rounds.append({"sampled": size, "verified": len(verified), "lessons": len(lessons)})
        print(f"round {number + 1}: {len(verified)} of {size} samples verified, {len(lessons)} lessons", flush=True)
        seed = random.Random(f"{config.seed}:{name}:sft").getrandbits(31)
        fine_tune(context.student, context.tokenizer, lessons, stage_of(size), seed=seed, work_dir=work_dir)
    return rounds
