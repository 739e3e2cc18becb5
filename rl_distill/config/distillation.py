"""Settings of the stages before PPO: warm-up and distillation, with their losses and schedules.

Every number has its range beside it and every field its meaning below it. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from .ranges import ranged


@dataclass(frozen=True)
class ScheduleConfig:
    """A number that changes over a stage, from `start` to `end`; `end` null keeps it constant."""

    start: float = ranged(1.0, "[0, inf)")
    """Its first value."""
    end: float | None = ranged(None, "[0, inf)")
    """Its last value."""
    kind: Literal["constant", "linear", "cosine", "step"] = "linear"
    """`step` jumps from start to end at the share `step_at` of the stage."""
    step_at: float = ranged(0.2, "[0, 1]")
    """With kind step: the share of the stage at which it jumps."""


@dataclass(frozen=True)
class InnerStatesConfig:
    """What the student learns from inside the teacher; needs a colocated teacher. Layers count from 0."""

    hidden_map: str | dict[str, Any] | None = None
    """Hidden states: `uniform`, `last`, or {student layer: teacher layer} such as {6: 9}."""
    hidden_loss: Literal["mse", "cosine"] = "mse"
    """Mean square over the width, or 1 - cos."""
    hidden_coef: float = ranged(0.1, "[0, inf)")
    """Weight of the hidden states in the loss."""
    attention_map: str | dict[str, Any] | None = None
    """Attention maps of these layers, by the KL of their rows."""
    attention_coef: float = ranged(0.1, "[0, inf)")
    """Weight of the attention maps in the loss."""
    embedding_coef: float = ranged(0.0, "[0, inf)")
    """Weight of the mean squared distance between the input embeddings."""


@dataclass(frozen=True)
class GuidedConfig:
    """Weights of the KD term per task, and of each mapped layer, that follow measured gradients."""

    by: Literal["conflict", "variance"] = "conflict"
    """conflict: cap to the power of the cosine between the term's gradient and the task's. variance: what is steadier
    than the others of its kind counts more."""
    every_steps: int = ranged(10, "[1, inf)")
    """Steps between measurements; each costs a backward pass."""
    cap: float = ranged(2.0, "[1, inf)")
    """No weight is above this or below its inverse."""
    memory: float = ranged(0.7, "[0, 1)")
    """Share of the moving averages that a new measurement leaves."""


@dataclass(frozen=True)
class DistillConfig:
    """One distillation stage: alpha x cross entropy + (1 - alpha) x T^2 x divergence, plus inner states."""

    num_steps: int = ranged(400, "[1, inf)")
    """Optimizer steps."""
    batch_size: int = ranged(32, "[1, inf)")
    """Sequences of one optimizer step, all processes together."""
    micro_batch_size: int = ranged(32, "[1, inf)")
    """Sequences of one forward pass; changes memory, never the result."""
    data: Literal["teacher_texts", "gold"] = "teacher_texts"
    """What the fixed sequences are: texts the teacher writes (sequence-level KD) or the reference solutions."""
    num_prompts: int = ranged(1000, "[1, inf)")
    """Prompts that the sequences answer: those the teacher writes for first, then training prompts."""
    only_verified: bool = False
    """Keep only the teacher's texts that pass the check."""
    on_policy: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(0.0))
    """Share of the rows whose completion the student samples itself (GKD's lambda); these carry no cross entropy."""
    teacher_mix: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(0.0))
    """Of those samples: the teacher's share in the distribution that each token is drawn from (MiniLLM)."""
    divergence: Literal["forward_kl", "reverse_kl", "jsd", "tvd"] = "forward_kl"
    """Between the distributions of student and teacher: KL(teacher || student) is forward."""
    beta: float = ranged(0.5, "[0, 1]")
    """Of jsd: the weight of the teacher in the mixture."""
    top_k: int = ranged(64, "[1, inf)")
    """Ids per token: the likeliest of a teacher behind a server or in the cache, all others as one outcome; or those
    drawn into the cache."""
    cache: Literal["none", "top_k", "sampled"] = "none"
    """Keep the teacher's distribution along the texts on disk, so that it scores each of them once: its `top_k`
    likeliest ids, or as many drawn from it, which leave the forward KL unbiased."""
    alpha: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(0.25))
    """Weight of the cross entropy: 0.25 is KD : task = 3 : 1. {start: 0, end: 0.25, kind: step, step_at: 0.2} begins
    with the teacher alone."""
    temperature: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(1.0))
    """Divides both models' logits in the divergence, which is multiplied by its square."""
    interpolation: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(1.0))
    """Below 1 the target is interpolated between student and teacher (TAID)."""
    inner: InnerStatesConfig = field(default_factory=InnerStatesConfig)
    """Hidden states, attention maps and embeddings."""
    guided: GuidedConfig | None = None
    """Weights that follow the gradients; null: all stay 1."""
    optimizer: Literal["auto", "muon", "adamw"] = "auto"
    """`auto`: Muon on the matrices of models below 20 M parameters, AdamW above."""
    learning_rate: float = ranged(3e-3, "(0, inf)")
    """Its highest value, after the warm-up."""
    final_learning_rate_fraction: float = ranged(0.05, "[0, 1]")
    """The learning rate falls along a cosine to this share of the highest."""
    warmup_steps: int = ranged(20, "[0, inf)")
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = ranged(0.0, "[0, inf)")
    """AdamW's, on all but biases and norms."""
    max_grad_norm: float = ranged(1.0, "(0, inf)")
    """Gradients are clipped to this norm."""
    evaluate_every_steps: int = ranged(100, "[1, inf)")
    """Steps between evaluations, each with a checkpoint."""
    patience: int | None = ranged(None, "[1, inf)")
    """Stop after so many evaluations without a better validation accuracy, and take the best student; null: never."""
    num_heldout: int = ranged(128, "[1, inf)")
    """Held-out sequences for divergence, agreement and perplexity."""


@dataclass(frozen=True)
class WarmUpConfig(DistillConfig):
    """A stage before distillation and PPO: supervised on the teacher's texts that pass the check."""

    alpha: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(1.0))
    """Weight of the cross entropy; 1 is supervised training alone."""
    only_verified: bool = True
    """Keep only the teacher's texts that pass the check."""
