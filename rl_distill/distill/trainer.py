"""Distillation on transformers.Trainer: the train dataloader is the stream of micro-batches, compute_loss the loss.

One Trainer step is one optimizer step over `distill.batch_size` rows. Rows, samples and schedules follow from
(seed, step) alone, so a resumed run repeats them exactly. Only documented hooks of Trainer are overridden.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from .. import distributed
from ..config import ConfigError, DistillConfig, RunConfig
from ..generation.sampling import Generated, GenerationEngine, Sampling, TransformersEngine
from ..hf_training import make_training_arguments, summed_over_processes
from ..maths.batching import TokenBatch, length_sorted, token_batch
from ..maths.distillation import Divergence, make_divergence
from ..teachers import Teacher
from .examples import Example, Row, example_order
from .guidance import Guidance
from .mixed_sampling import generate_mixed
from .schedules import value_at
from .sft import MuonAdamW
from .student import DistillationOutput, DistillationStudent, SoftTargets, teacher_inner_states

if TYPE_CHECKING:
    from .teacher_cache import TeacherCache

MUON_BELOW_PARAMETERS = 20_000_000
"""A Muon step orthogonalises every matrix: 6.2 CPU-seconds at 106 M parameters, where AdamW takes 0.46."""


@dataclass(frozen=True)
class MicroBatch:
    """Rows of similar length. `fixed_N` marks tokens of fixed sequences, but for free text: they alone carry cross
    entropy. The counts are those of the whole step over all processes."""

    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    tokens: TokenBatch
    fixed_N: Tensor
    tasks: list[str]
    num_tokens: float
    num_fixed_tokens: float


class DistillationTrainer(Trainer):
    """Trains a DistillationStudent on `examples` under `teacher` (None: cross entropy alone).

    `evaluate_student` returns held-out numbers of the causal LM it is given. With `cache` its targets replace the
    teacher's.
    """

    def __init__(
        self,
        model: DistillationStudent,
        config: RunConfig,
        settings: DistillConfig,
        examples: Sequence[Example],
        teacher: Teacher | None,
        tokenizer: PreTrainedTokenizerBase,
        output_dir: Path,
        evaluate_student: Callable[[Any], dict[str, float]] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        cache: TeacherCache | None = None,
    ) -> None:
        self.cache = cache
        self.config, self.distill = config, settings
        self.student, self.examples, self.teacher, self.tokenizer = model, examples, teacher, tokenizer
        self.order = example_order(examples, self.distill, config)
        self.engine: GenerationEngine = TransformersEngine(tokenizer, config.generation.batch_size, None)
        self.evaluate_student = evaluate_student
        self.divergence: Divergence = make_divergence(self.distill.divergence, self.distill.beta)
        self.guidance = make_guidance(self.distill, model, examples)
        self.sums: list[dict[str, Tensor]] = []
        self.logged_at = 0
        super().__init__(
            model=model,
            args=training_arguments(config, self.distill, output_dir),
            train_dataset=list(examples),
            eval_dataset=list(examples),
            processing_class=tokenizer,
            callbacks=[*callbacks, *([] if self.guidance is None else [self.guidance])],
        )
        self.loss_is_scaled_for_ga = True
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> Any:
        return ExampleStream(self)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Muon on the matrices of small models, AdamW for the others (`distill.optimizer: auto`)."""
        if self.optimizer is None:
            trained = sum(p.numel() for p in self.student.parameters() if p.requires_grad)
            chosen = self.distill.optimizer
            small = trained < MUON_BELOW_PARAMETERS and not self.distill.weight_decay  # Muon here has none
            if chosen == "muon" or (chosen == "auto" and small):
                self.optimizer = MuonAdamW(self.student, self.distill.learning_rate)
            else:
                return super().create_optimizer()
        return self.optimizer

    @property
    def progress(self) -> float:
        """Share of the stage's steps done, 0 to 1."""
        return self.state.global_step / max(1, self.distill.num_steps - 1)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Sum over this micro-batch's tokens / tokens of the whole step: micro-batches and processes add up."""
        piece: MicroBatch = inputs["piece"]
        settings, device = self.distill, distributed.device()
        temperature = value_at(settings.temperature, self.progress)
        tokens = piece.tokens.to(device)
        piece = replace(piece, tokens=tokens, fixed_N=piece.fixed_N.to(device))
        guides = self.guidance is not None and self.guidance.measures(self.state.global_step)
        output = model(
            tokens,
            self.soft_targets(piece, temperature),
            self.divergence,
            temperature=temperature,
            interpolation=value_at(settings.interpolation, self.progress),
            keep_points=guides,
        )
        if guides and self.guidance is not None:
            self.guidance.measure(output, piece.fixed_N, piece.tasks, list(map(len, piece.completion_ids)))
        loss, parts = self._loss(output, piece, temperature)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"distillation step {self.state.global_step}: the loss is {loss.item()}; the last checkpoint is kept: "
                "resume from it with a lower distill.learning_rate"
            )
        self.sums.append({name: value.detach() for name, value in parts.items()})
        return loss * distributed.world_size()  # DDP averages gradients over processes

    def soft_targets(self, piece: MicroBatch, temperature: float) -> SoftTargets:
        """The teacher's side of a micro-batch; empty where the stage is cross entropy alone."""
        teacher = self.teacher
        if self.cache is not None:
            return self.cache.targets(piece.prompt_ids, piece.completion_ids)
        if teacher is None:
            return SoftTargets()
        if self.student.hidden_map or self.student.attention_map or self.student.embeddings:
            model = teacher.model  # type: ignore[attr-defined]  # a colocated teacher: check_distillation refuses others
            teacher.tokens_scored += sum(map(len, piece.prompt_ids)) + sum(map(len, piece.completion_ids))  # type: ignore[misc]
            layers = set(self.student.hidden_map.values()), set(self.student.attention_map.values())
            hidden_NE, inner = teacher_inner_states(model, piece.tokens, *layers)
            return SoftTargets(hidden_NE, teacher.lm_head_weight_VE, inner=inner)
        exact = teacher.lm_head_weight_VE is not None
        top_k = 0 if exact else self.distill.top_k
        scores = teacher.score(piece.prompt_ids, piece.completion_ids, tasks=piece.tasks, top_k=top_k)
        if exact:
            return SoftTargets(scores.hidden_NE, teacher.lm_head_weight_VE)
        assert scores.top_ids_NK is not None, "check_distillation refuses teachers without a distribution"
        return SoftTargets(top_ids_NK=scores.top_ids_NK, top_logprobs_NK=scores.top_logprobs_NK)

    def _loss(
        self, output: DistillationOutput, piece: MicroBatch, temperature: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        settings, inner = self.distill, self.distill.inner
        alpha = value_at(settings.alpha, self.progress) if output.divergence_N is not None else 1.0
        cross_entropy = (output.cross_entropy_N * piece.fixed_N).sum() / max(1.0, piece.num_fixed_tokens)
        parts = {"loss/task": alpha * cross_entropy}
        if output.divergence_N is not None:
            weighted = (output.divergence_N * self._task_weights(piece)).sum() / piece.num_tokens
            parts["loss/kd"] = (1 - alpha) * temperature**2 * weighted
            parts["divergence"] = output.divergence_N.detach().sum() / piece.num_tokens
        for name, value_LN, coef, layers in (
            ("hidden", output.hidden_LN, inner.hidden_coef, self.student.hidden_map),
            ("attention", output.attention_LN, inner.attention_coef, self.student.attention_map),
        ):
            if value_LN is not None:
                per_layer = value_LN.sum(dim=1) * value_LN.new_tensor([self._weight(f"{name}/{n}") for n in layers])
                parts[f"loss/{name}"] = coef * per_layer.mean() / piece.num_tokens
        if output.embedding_N is not None:
            parts["loss/embedding"] = inner.embedding_coef * output.embedding_N.sum() / piece.num_tokens
        loss = torch.stack([value for name, value in parts.items() if name.startswith("loss/")]).sum()
        return loss, parts | {"nll": cross_entropy}

    def _weight(self, part: str) -> float:
        return 1.0 if self.guidance is None else self.guidance.weights()[part]

    def _task_weights(self, piece: MicroBatch) -> Tensor | float:
        """Of each token, the weight of the KD term in its task."""
        if self.guidance is None:
            return 1.0
        weights = self.guidance.weights()
        of_rows = piece.fixed_N.new_tensor([weights[f"kd/{task}"] for task in piece.tasks], dtype=torch.float32)
        return of_rows.repeat_interleave(
            piece.fixed_N.new_tensor(list(map(len, piece.completion_ids)), dtype=torch.long)
        )

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the parts of the loss over all processes, and the ratio of the KD term to the task term as it really is:
        the factor T^2 shrinks it sixteenfold when T falls from 2 to 0.5."""
        if self.sums and "loss" in logs:
            steps = max(1, self.state.global_step - self.logged_at)
            self.logged_at = self.state.global_step
            logs |= summed_over_processes(self.sums, steps)
            logs["schedule/temperature"] = value_at(self.distill.temperature, self.progress)
            logs["schedule/alpha"] = value_at(self.distill.alpha, self.progress)
            if self.guidance is not None:
                logs |= {f"guided/{part}": weight for part, weight in self.guidance.weights().items()}
            logs |= self.order.metrics()
            if logs.get("loss/task"):
                logs["ratio/kd_to_task"] = logs.get("loss/kd", 0.0) / logs["loss/task"]
            self.sums = []
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The held-out numbers, logged as `eval_*`."""
        metrics = {} if self.evaluate_student is None else self.evaluate_student(self.student.policy)
        metrics = {f"eval_{name}": value for name, value in metrics.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def gathered_weights(self) -> contextlib.AbstractContextManager[Any]:
        """Inside, every process holds all of the student's weights, wherever they live while it trains."""
        return distributed.gathered_weights(self.model_wrapped, self.accelerator)


class ExampleStream:
    """The micro-batches of every step from the trainer's present one on."""

    def __init__(self, trainer: DistillationTrainer) -> None:
        self.trainer = trainer

    def __iter__(self) -> Iterator[dict[str, MicroBatch]]:
        trainer = self.trainer
        trainer.logged_at = trainer.state.global_step
        for step in range(trainer.state.global_step, trainer.distill.num_steps):
            if trainer.control.should_training_stop:
                return
            for piece in self.micro_batches(step):
                yield {"piece": piece}

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """This process's rows of a step in pieces of similar length, as many on every process."""
        trainer = self.trainer
        rows = trainer.order.rows(step)
        mine = [rows[row] for row in distributed.my_rows(len(rows))]
        examples = [trainer.examples[row.example] for row in mine]
        completions = self._completions(mine, examples)
        lengths = [len(e.prompt_ids) + len(c) for e, c in zip(examples, completions, strict=True)]
        taught = [not row.on_policy and not e.divergence_only for row, e in zip(mine, examples, strict=True)]
        fixed = sum(len(c) for is_taught, c in zip(taught, completions, strict=True) if is_taught)
        counts = torch.tensor([sum(map(len, completions)), fixed], dtype=torch.float64)
        num_tokens, num_fixed = distributed.sum_over_processes(counts).tolist()
        pieces = []
        for picks in length_sorted(lengths, trainer.distill.micro_batch_size):
            prompts, chosen = [examples[i].prompt_ids for i in picks], [completions[i] for i in picks]
            sizes = torch.tensor([len(c) for c in chosen])
            fixed_N = torch.tensor([taught[i] for i in picks]).repeat_interleave(sizes)
            tokens = token_batch(prompts, chosen, pad_id(trainer.tokenizer))
            tasks = [examples[i].task for i in picks]
            pieces.append(MicroBatch(prompts, chosen, tokens, fixed_N, tasks, num_tokens, num_fixed))
        return pieces

    def _completions(self, rows: Sequence[Row], examples: Sequence[Example]) -> list[list[int]]:
        """The fixed completion of each row, or the student's own sample where the row is on-policy."""
        completions = [example.completion_ids for example in examples]
        sampled = [i for i, row in enumerate(rows) if row.on_policy]
        if not distributed.any_process(bool(sampled)):
            return completions
        generated = self._sample([examples[i].prompt_ids for i in sampled], [rows[i].seed for i in sampled])
        for i, item in zip(sampled, generated, strict=True):
            completions[i] = item.token_ids
        return completions

    def _sample(self, prompt_ids: list[list[int]], seeds: list[int]) -> list[Generated]:
        trainer, settings = self.trainer, self.trainer.config.generation
        sampling = Sampling(settings.max_completion_length, settings.temperature, settings.top_p)
        was_training = trainer.student.training
        trainer.student.eval()
        share = value_at(trainer.distill.teacher_mix, trainer.progress)
        with trainer.gathered_weights():
            policy = trainer.student.policy
            if share:
                teacher: Any = trainer.teacher  # colocated: check_distillation refuses others
                generated = generate_mixed(policy, teacher, share, trainer.tokenizer, prompt_ids, sampling, seeds)
            else:
                generated = trainer.engine.generate(policy, prompt_ids, sampling, seeds, lambda *_: None)
        trainer.student.train(was_training)
        return generated


def make_guidance(
    settings: DistillConfig, student: DistillationStudent, examples: Sequence[Example]
) -> Guidance | None:
    """What the weights of tasks and mapped layers follow; None where the config does not ask for it."""
    if settings.guided is None:
        return None
    tasks = sorted({example.task for example in examples})
    layers = [f"{kind}/{n}" for kind in ("hidden", "attention") for n in getattr(student, f"{kind}_map")]
    return Guidance(settings.guided, [*(f"kd/{task}" for task in tasks), *layers])


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id to pad with; any id does, as nothing computed on padding is read."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def training_arguments(config: RunConfig, settings: DistillConfig, output_dir: Path) -> TrainingArguments:
    """The arguments of the stage; ConfigError where the rows do not divide over the processes."""
    processes = distributed.world_size()
    if settings.batch_size % processes:
        raise ConfigError(f"distill.batch_size ({settings.batch_size}) must divide over the {processes} processes")
    rows = settings.batch_size // processes
    best = {} if settings.patience is None else {"metric_for_best_model": "eval_accuracy", "greater_is_better": True}
    return make_training_arguments(
        config,
        output_dir,
        final_learning_rate_fraction=settings.final_learning_rate_fraction,
        max_steps=settings.num_steps,
        per_device_train_batch_size=min(settings.micro_batch_size, rows),
        gradient_accumulation_steps=math.ceil(rows / settings.micro_batch_size),
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=10,
        eval_steps=settings.evaluate_every_steps,
        save_steps=settings.evaluate_every_steps,
        **best,
    )
