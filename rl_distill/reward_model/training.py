"""Trains the reward model of reward_models/learned_model.py on scored examples: regression, or preference pairs.

Regression runs on transformers.Trainer, preference on TRL's RewardTrainer; both with the optimizer of the supervised
stages. Nothing here looks at a held-out example.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import AutoModel, AutoTokenizer, PrinterCallback, ProgressCallback, Trainer, TrainingArguments
from trl import RewardConfig, RewardTrainer

from reward_models.learned_model import Encoded, LearnedRewardModel, from_trunk, pad_rows, predict

from .. import distributed
from ..config import ConfigError
from ..distill.sft import MuonAdamW
from ..progress import StageProgress
from ..run_setup import RunContext
from ..teachers.colocated import ColocatedTeacher
from ..teachers.prompted import PromptedTeacher
from .examples import Example
from .probes import is_probe
from .settings import RewardModelRunConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NUM_CALIBRATION_ROWS = 2000
COLUMNS = {"ids": "input_ids", "segments": "segment_ids", "matches": "match_ids", "readings": "readings"}
"""Each side of a pair in TRL's dataset: `chosen_ids` is the name by which RewardTrainer knows tokenised rows."""


def make_reward_model(config: RewardModelRunConfig, context: RunContext) -> tuple[LearnedRewardModel, Any]:
    """(untrained model, its tokenizer): heads on a copy of the teacher's trunk, or on the trunk of the config."""
    settings = config.reward_model
    teacher = context.teacher.inner if isinstance(context.teacher, PromptedTeacher) else context.teacher
    assert isinstance(teacher, ColocatedTeacher), "made without a link"
    if settings.trunk is None:
        trunk, tokenizer = teacher.model.get_decoder(), context.tokenizer
    else:
        trunk = AutoModel.from_pretrained(settings.trunk, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(settings.trunk)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
    limit = getattr(trunk.config.get_text_config(), "max_position_embeddings", None) or 512
    if settings.max_length is not None and settings.max_length > limit:
        raise ConfigError(f"reward_model.max_length: {settings.max_length} is more than the trunk's {limit} tokens")
    torch.manual_seed(config.seed)
    model = from_trunk(
        trunk,
        max_tokens=settings.max_length or limit,
        correctness_weight=settings.correctness_weight,
        readings=settings.readings,
        noise={} if settings.calibration_share else None,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model.float().to(teacher.device), tokenizer


def check_batch(config: RewardModelRunConfig) -> None:
    """Raises ConfigError where a training step's rows do not divide over the processes."""
    if config.reward_model.batch_size % distributed.world_size():
        raise ConfigError(
            f"reward_model.batch_size: {config.reward_model.batch_size} rows do not divide over "
            f"{distributed.world_size()} processes"
        )


@distributed.without_sharding()
def train(
    config: RewardModelRunConfig,
    model: LearnedRewardModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    progress: bool = True,
) -> LearnedRewardModel:
    """`model` after reward_model.num_steps optimizer steps, in place. Raises ConfigError without a pair to prefer."""
    make = _regression if config.reward_model.objective == "regression" else _preference
    trainer = make(config, model, tokenizer, examples)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    if progress:
        trainer.add_callback(StageProgress("reward model"))
    trainer.train()
    with contextlib.suppress(OSError):  # it holds something, or another process was here first
        Path(str(trainer.args.output_dir)).rmdir()
    if config.reward_model.objective == "preference":
        calibrate(model.eval(), tokenizer, examples, config.seed)
    return model.eval()


def _regression(
    config: RewardModelRunConfig, model: Any, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> Trainer:
    return Trainer(
        model=model,
        args=distributed.on_one_device(TrainingArguments(**_arguments(config))),
        train_dataset=list(examples),
        data_collator=RegressionBatches(tokenizer, model.config.max_tokens, config),
        optimizers=(MuonAdamW(model, config.reward_model.learning_rate), None),
    )


def _preference(
    config: RewardModelRunConfig, model: Any, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]
) -> Trainer:
    found = pairs(examples, random.Random(f"{config.seed}:pairs"), config.reward_model.teacher_dropout)
    if not found:
        raise ConfigError(
            "reward_model.objective: preference found no pair: no teacher output beats a student's, and no prompt has "
            "a right and a wrong answer"
        )
    rows = []
    for pair in found:
        sides = {"chosen": pair.chosen, "rejected": pair.rejected}
        row: dict[str, Any] = {}
        for name, side in sides.items():
            encoded = side.encoded(tokenizer, model.config.max_tokens, with_teacher=pair.with_teacher)
            row |= {f"{name}_{column}": getattr(encoded, part) for column, part in COLUMNS.items()}
        rows.append(row)
    return RewardTrainer(
        model=model,
        args=distributed.on_one_device(
            RewardConfig(**_arguments(config), max_length=None, center_rewards_coefficient=0.01)
        ),
        train_dataset=Dataset.from_list(rows),
        data_collator=lambda batch: preference_batch(batch, tokenizer.pad_token_id),
        processing_class=tokenizer,
        optimizers=(MuonAdamW(model, config.reward_model.learning_rate), None),
    )


def _arguments(config: RewardModelRunConfig) -> dict[str, Any]:
    """Arguments that both trainers share; nothing is saved or reported by them."""
    settings = config.reward_model
    return {
        "output_dir": str(Path(config.output_dir) / "work"),
        "max_steps": settings.num_steps,
        "per_device_train_batch_size": settings.batch_size // distributed.world_size(),
        "learning_rate": settings.learning_rate,
        "warmup_steps": settings.warmup_steps,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.02},
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": not torch.cuda.is_available(),
        "remove_unused_columns": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "seed": config.seed,
        "dataloader_pin_memory": False,
    }


class RegressionBatches:
    """Collates examples; the teacher's output and its readings are each left out of a random share of the rows, drawn
    anew every time.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, config: RewardModelRunConfig) -> None:
        self.tokenizer, self.max_length, self.settings = tokenizer, max_length, config.reward_model
        self.rng = random.Random(f"{config.seed}:teacher_dropout")
        self.readings_rng = random.Random(f"{config.seed}:readings_dropout")

    def encoded(self, examples: Sequence[Example]) -> list[Encoded]:
        return [
            example.encoded(
                self.tokenizer,
                self.max_length,
                with_teacher=self.rng.random() >= self.settings.teacher_dropout,
                with_readings=self.readings_rng.random() >= self.settings.readings_dropout,
            )
            for example in examples
        ]

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        rows = self.encoded(examples)
        verdicts = [float("nan") if example.verdict is None else example.verdict for example in examples]
        return pad_rows(rows, self.tokenizer.pad_token_id) | {
            "scores": torch.tensor([min(1.0, max(0.0, example.score)) for example in examples]),
            "verdicts": torch.tensor(verdicts),
        }


@dataclass(frozen=True)
class Pair:
    """Two candidates of one prompt. `with_teacher`: the teacher's output is shown beside both."""

    chosen: Example
    rejected: Example
    with_teacher: bool


def pairs(examples: Sequence[Example], rng: random.Random, teacher_dropout: float) -> list[Pair]:
    """Teacher over student where its score is higher (never shown the teacher's output: it would be the answer), and
    right over wrong among the student's answers.
    """
    by_prompt: dict[str, list[Example]] = {}
    for example in examples:
        by_prompt.setdefault(example.prompt, []).append(example)
    found = []
    for rows in by_prompt.values():
        teachers = [row for row in rows if row.source == "teacher"]
        students = [row for row in rows if row.source == "student"]
        found += [Pair(t, s, False) for t in teachers for s in students if t.score > s.score and t.verdict != 0.0]
        right, wrong = ([row for row in students if row.verdict == verdict] for verdict in (1.0, 0.0))
        wrong += [row for row in rows if is_probe(row)]
        found += [Pair(r, w, rng.random() >= teacher_dropout) for r in right for w in wrong]
    return found


def preference_batch(rows: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """The layout of TRL's RewardTrainer: the chosen rows, then the rejected ones in the same order."""
    sides = [(side, row) for side in ("chosen", "rejected") for row in rows]
    parts: list[list[Any]] = [[row.get(f"{side}_{column}") for column in COLUMNS] for side, row in sides]
    encoded = [Encoded(ids, segments, matches, readings=readings) for ids, segments, matches, readings in parts]
    return pad_rows(encoded, pad_token_id)


def calibrate(
    model: LearnedRewardModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], seed: int
) -> None:
    """Fits the score's scale and shift on training examples: pairs leave the logit without a zero or a unit.

    Platt (1999) with the blended score as a soft label; the order of scores stays as it is.
    """
    chosen = random.Random(f"{seed}:calibrate").sample(list(examples), min(NUM_CALIBRATION_ROWS, len(examples)))
    rows = [example.encoded(tokenizer, model.config.max_tokens) for example in chosen]
    model.config.scale, model.config.shift = 1.0, 0.0
    scores, _ = predict(model, rows, tokenizer.pad_token_id)
    logits = torch.logit(torch.tensor(scores, dtype=torch.float64), eps=1e-6)
    targets = torch.tensor([min(1.0, max(0.0, e.score)) for e in chosen], dtype=torch.float64)
    log_scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_scale, shift], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(log_scale.exp() * logits + shift, targets)
        loss.backward()
        return loss

    optimizer.step(closure)
    model.config.scale, model.config.shift = float(log_scale.detach().exp()), float(shift.detach())
