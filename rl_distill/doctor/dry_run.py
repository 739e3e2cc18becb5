"""What a run would do, as text: data, steps, tokens, memory, checkpoints and where the files go.

May assume a RunContext, right before the first rollout. Only counts and estimates; nothing is trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from .. import distributed
from ..config import RunConfig, teachers_of
from ..evals.statistics import quantile
from ..ppo.hf_arguments import updates_per_step
from ..run_setup import RunContext, cache_dir_of
from ..types import Problem
from . import memory
from .from_config import plan_of


def plan_text(config: RunConfig, context: RunContext, trained: int) -> str:
    """The plan, a line per topic; `trained` is the number of parameters that will be trained."""
    splits = context.splits
    rows = {
        "training rows": by_task(splits.train),
        "validation, test": f"{len(splits.validation):,} and {len(splits.test):,} rows",
        "prompts": lengths(context.tokenizer, splits.train),
        "steps": steps(config),
        "rollouts": rollouts(config, len(splits.train)),
        "tokens": tokens(config),
        "parameters": f"{trained:,} trained (policy and critic)",
        "memory": memory_estimate(config, context.student.config),
        "evaluation": f"every {config.evaluation.every_steps} steps on the validation rows; test rows before and after",
        "checkpoints": f"every {config.checkpoint.every_steps} steps, the last {config.checkpoint.keep_last} are kept",
        "output": f"{Path(config.output_dir).resolve()} (student/, report.html, results.json, metrics.jsonl)",
        "cache": str(cache_dir_of(config).resolve()),
    }
    width = max(map(len, rows))
    return "\n".join(["Plan (dry run, nothing was trained)", *(f"  {k.ljust(width)}  {v}" for k, v in rows.items())])


def by_task(problems: Sequence[Problem]) -> str:
    counts = Counter(problem.task for problem in problems)
    return f"{len(problems):,} (" + ", ".join(f"{task} {count:,}" for task, count in sorted(counts.items())) + ")"


def lengths(tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]) -> str:
    ids: Any = tokenizer([problem.prompt for problem in problems], add_special_tokens=False)["input_ids"]
    found = sorted(map(len, ids))
    return f"median {quantile(found, 0.5):.0f} tokens, longest {found[-1]}"


def steps(config: RunConfig) -> str:
    updates = updates_per_step(config)
    return (
        f"{config.ppo.num_steps:,} PPO steps, {config.ppo.num_steps * updates:,} optimizer steps ({updates} per step)"
    )


def rollouts(config: RunConfig, num_rows: int) -> str:
    count = config.ppo.num_steps * config.ppo.batch_size
    passes = count / config.ppo.group_size / num_rows
    return (
        f"{count:,} completions ({config.ppo.batch_size} per step), {passes_text(passes)} passes over the training rows"
    )


def passes_text(passes: float) -> str:
    return f"{passes:,.0f}" if passes >= 9.95 else f"{passes:.2g}"


def tokens(config: RunConfig) -> str:
    length = config.generation.max_completion_length
    most = config.ppo.num_steps * config.ppo.batch_size * length
    return f"at most {most:,} sampled by the student and scored by the teacher ({length} per completion)"


def memory_estimate(config: RunConfig, student: PretrainedConfig) -> str:
    """Expected memory of a GPU of the student; the demo's models need next to none."""
    if config.demo is not None:
        return "under 2 GiB (demo models)"
    teacher = AutoConfig.from_pretrained(str(teachers_of(config)[0].model))
    num_gpus = distributed.world_size()
    plan = plan_of(config, num_gpus, distributed.zero_stage())
    peak = memory.student_gpu(memory.Shape.of(student), memory.Shape.of(teacher), plan)["peak"]
    return f"about {peak / memory.GIB:.1f} GiB per GPU of the student ({num_gpus} process{'es' * (num_gpus > 1)})"
