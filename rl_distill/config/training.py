"""Settings of the training itself: the anchor, PPO, sampling, evaluation, checkpoints, processes.

Every number has its range beside it and every field its meaning below it. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .ranges import ranged


@dataclass(frozen=True)
class AnchorConfig:
    """The pull towards the teacher: KL(student || teacher) per token, times a coefficient."""

    placement: Literal["loss", "reward", "none"] = "loss"
    """Where the KL acts: in the loss, in the per-token reward (GAE sees it), or nowhere."""
    estimator: Literal["exact", "k1", "k2", "k3", "top_k"] = "exact"
    """Of the KL: over the whole vocabulary; from the sampled token; or over the teacher's `top_k` likeliest ids."""
    top_k: int = ranged(32, "[1, inf)")
    """With estimator top_k: the teacher's likeliest ids per token; all others count as one outcome."""
    prompts: Literal["all", "teacher_right", "routed"] = "all"
    """Where it acts. `teacher_right`: not on prompts whose answer by the teacher, sampled once before training, fails
    the check. `routed`: the same, and on prompts that the teacher does solve the reward does not count."""
    schedule: Literal["fixed", "anneal", "adaptive", "evidence"] = "evidence"
    """`fixed`: coef. `anneal`: coef to coef_end between anneal_start and anneal_end. `adaptive`: aims at target_kl.
    `evidence`: per task, strong until the student's verified success has reached the teacher's."""
    coef: float = ranged(1.0, "[0, inf)")
    """The coefficient; where it changes, its first value, and with `evidence` its highest."""
    coef_end: float = ranged(0.05, "[0, inf)")
    """With schedule anneal: the last value."""
    anneal_start: float = ranged(0.25, "[0, 1)")
    """With schedule anneal: the share of the run after which the coefficient starts to fall."""
    anneal_end: float = ranged(0.7, "(0, 1]")
    """With schedule anneal: the share of the run at which it has reached coef_end."""
    target_kl: float = ranged(0.1, "(0, inf)")
    """With schedule adaptive: the KL aimed at, in nats per token."""
    horizon: int = ranged(10_000, "[1, inf)")
    """With schedule adaptive: completions over which the coefficient adapts; large is slow."""
    evidence_floor: float = ranged(0.05, "[0, inf)")
    """With schedule evidence: the coefficient of a task on which the student has caught up."""
    evidence_scale: float = ranged(0.15, "(0, inf)")
    """With schedule evidence: the lead of the teacher's success rate at which the coefficient is `coef`."""
    evidence_decay: float = ranged(0.9, "[0, 1)")
    """With schedule evidence: the weight that a rollout of the student loses with every later step is 1 minus this."""


@dataclass(frozen=True)
class PPOConfig:
    """One step = one rollout of `batch_size` completions (all processes together), then its updates.

    A step does exactly num_epochs x num_minibatches optimizer steps. `micro_batch_size` only bounds memory:
    it changes how gradients are accumulated, never the result.
    """

    num_steps: int = ranged(350, "[1, inf)")
    """Rollouts of the run."""
    batch_size: int = ranged(128, "[1, inf)")
    """Completions per rollout, all processes together."""
    group_size: int = ranged(1, "[1, inf)")
    """Completions per prompt."""
    num_epochs: int = ranged(1, "[1, inf)")
    """Passes over each rollout."""
    num_minibatches: int = ranged(4, "[1, inf)")
    """Optimizer steps per pass."""
    micro_batch_size: int = ranged(32, "[1, inf)")
    """Rows per forward and process; bounds memory, never changes the result."""
    micro_batch_tokens: int | None = ranged(None, "[1, inf)")
    """Tokens per forward and process, padding included, instead of rows. A longer row gets its own forward."""
    packing: Literal["auto", "on", "off"] = "auto"
    """Whether short rows share one of a micro-batch: the same gradients with less padding. `auto`: on a CPU."""
    advantage: Literal["gae", "group_mean"] = "gae"
    """`gae`: with a critic. `group_mean`: the score minus the mean of its prompt's completions, without a critic."""
    critic: Literal["teacher_informed", "shared", "separate"] = "teacher_informed"
    """`teacher_informed`: reads the teacher's hidden states. `shared`: a head on the policy's trunk. `separate`: a
    trunk of its own."""
    critic_warmup_steps: int = ranged(5, "[0, inf)")
    """Steps at the start in which only the critic learns."""
    mask_truncated: bool = False
    """Leave completions cut by length out of policy, critic and their statistics (DAPO's overlong filtering)."""
    policy_coef: float = ranged(1.0, "[0, inf)")
    """Weight of the clipped policy loss."""
    value_coef: float = ranged(0.5, "[0, inf)")
    """Weight of the critic's loss."""
    entropy_coef: float = ranged(0.0, "[0, inf)")
    """Weight of the entropy bonus, in nats per token."""
    gamma: float = ranged(1.0, "[0, 1]")
    """Discount per token."""
    lam: float = ranged(0.95, "[0, 1]")
    """GAE's lambda per token."""
    clip_low: float = ranged(0.2, "(0, 1]")
    """The probability ratio is clipped below at 1 minus this."""
    clip_high: float = ranged(0.2, "(0, inf)")
    """The probability ratio is clipped above at 1 plus this."""
    dual_clip: float | None = ranged(None, "(1, inf)")
    """Bounds the loss of a token with a negative advantage that became likelier: this times the advantage."""
    value_clip: float | None = ranged(0.2, "(0, inf)")
    """The largest move of a value per step that counts, in units of reward."""
    normalize_advantages: Literal["none", "center", "standardize"] = "standardize"
    """Over the tokens of all processes: mean 0, and standard deviation 1 with `standardize`, where it was 0.01 or more
    (of smaller ones it becomes 100 times as much: rewards near 0.001 must not turn noise into full steps)."""
    learning_rate: float = ranged(7e-4, "(0, inf)")
    """Of the policy, at its peak. The default suits tiny models; 0.5B and above start near 1e-6."""
    value_learning_rate: float = ranged(3e-3, "(0, inf)")
    """Of the critic, at its peak."""
    final_learning_rate_fraction: float = ranged(0.3, "[0, 1]")
    """Of the peak, at the last step of the cosine."""
    warmup_steps: int = ranged(10, "[0, inf)")
    """Steps of linear learning-rate warm-up."""
    weight_decay: float = ranged(0.0, "[0, inf)")
    """AdamW's."""
    adam_beta2: float = ranged(0.95, "[0, 1)")
    """AdamW's beta2."""
    max_grad_norm: float = ranged(1.0, "(0, inf)")
    """Gradients are clipped to this norm, policy and critic separately (under DeepSpeed: together)."""
    bf16: bool = False
    """Autocast of the training forward; DeepSpeed: its bf16 engine; FSDP2: weights gathered in bf16."""
    stop_at_kl: float | None = ranged(50.0, "(0, inf)")
    """Stop with an error when the mean KL to the teacher of a rollout exceeds this; the last checkpoint is kept."""
    stop_at_unscored_steps: int | None = ranged(3, "[1, inf)")
    """Stop with an error after so many steps in a row in which no reward scored anything; None never does."""


@dataclass(frozen=True)
class VLLMConfig:
    """TRL's VLLMGeneration. `server_base_url`: of a running `vllm serve`; the others are for colocated engines."""

    server_base_url: str | None = None
    """Of a running `vllm serve`, such as http://localhost:8000."""
    gpu_memory_utilization: float = ranged(0.3, "(0, 1]")
    """Share of a GPU's memory that the colocated engine takes."""
    tensor_parallel_size: int = ranged(1, "[1, inf)")
    """GPUs over which the colocated engine splits its weights."""
    max_model_length: int | None = ranged(None, "[1, inf)")
    """Tokens of prompt and completion together; None takes the model's."""
    sleep: bool = False
    """Free the engine's memory while the student trains."""


@dataclass(frozen=True)
class GenerationConfig:
    """Sampling of rollouts; evaluation is greedy with the same length limit."""

    max_completion_length: int = ranged(48, "[1, inf)")
    """Tokens after which a completion is cut."""
    temperature: float = ranged(1.0, "(0, inf)")
    """Temperature of sampling, of old and new log-probabilities and of the teacher's."""
    temperature_end: float | None = ranged(None, "(0, inf)")
    """Where given, the temperature goes linearly from `temperature` at the first step to this at the last."""
    top_p: float = ranged(1.0, "(0, 1]")
    """Sampling keeps the smallest set of tokens with this probability; log-probabilities are of all tokens."""
    stop: tuple[str, ...] = ()
    """A completion ends after any of these texts, as after an EOS."""
    batch_size: int = ranged(64, "[1, inf)")
    """Completions sampled together, per process."""
    engine: Literal["transformers", "vllm_colocate", "vllm_server"] = "transformers"
    """The engine that samples rollouts."""
    dtype: Literal["student", "bfloat16"] = "student"
    """Of the weights that sample with `engine: transformers`. bfloat16: a copy, corrected for as vLLM is."""
    sampler_weight_cap: float = ranged(2.0, "(0, inf)")
    """With vLLM or bfloat16: advantages are multiplied by min(trainer's / sampler's probability, this) per token."""
    vllm: VLLMConfig = field(default_factory=VLLMConfig)
    """The vLLM engine's."""


@dataclass(frozen=True)
class DistributedConfig:
    """Several processes."""

    timeout_s: float = ranged(1800.0, "(0, inf)")
    """Seconds a process may be silent, or keep the others waiting, before the whole launch is stopped."""


@dataclass(frozen=True)
class CheckpointConfig:
    """Counted in PPO steps."""

    every_steps: int = ranged(1000, "[1, inf)")
    """PPO steps between checkpoints; one is also written after the last step."""
    every_minutes: float | None = ranged(15.0, "(0, inf)")
    """Minutes after which one is written at the end of a PPO step; None: by steps alone."""
    keep_last: int = ranged(2, "[1, inf)")
    """Newest checkpoints to keep; with evaluation.load_best the best by validation is kept as well."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Greedy answers to the validation problems during training."""

    every_steps: int = ranged(50, "[1, inf)")
    """PPO steps between evaluations."""
    patience: int | None = ranged(None, "[1, inf)")
    """Evaluations without a better accuracy after which the run stops; None never stops early."""
    load_best: bool = False
    """Save a checkpoint at every new best validation accuracy, and export the best one instead of the last."""
    batch_size: int = ranged(128, "[1, inf)")
    """Problems answered together, per process."""
    num_samples_shown: int = ranged(8, "[0, inf)")
    """Answers of the final evaluation that the report shows."""


@dataclass(frozen=True)
class AlarmsConfig:
    """When a run tells that something goes wrong. `alarm/...` in the metrics is 1 at the steps where it holds."""

    enabled: bool = True
    """Whether to check for alarms at all."""
    window: int = ranged(10, "[1, inf)")
    """Number of earlier steps the KL is compared with; an alarm is repeated only after as many silent steps."""
    kl_factor: float = ranged(5.0, "(1, inf)")
    """kl_jump: the KL to the teacher is at least this many times its median over the window."""
    kl_floor: float = ranged(0.5, "[0, inf)")
    """kl_jump: below this KL, in nats per token, nothing is a jump."""
    length_collapse: float = ranged(0.25, "(0, 1)")
    """length_collapse: answers are at most this fraction of their initial length."""
    length_growth: float = ranged(2.0, "(1, inf)")
    """length_explosion: answers are this many times their initial length, and cut_share of them are cut."""
    cut_share: float = ranged(0.5, "[0, 1]")
    """length_explosion: the share of answers that must be cut by length."""
    entropy_collapse: float = ranged(0.1, "(0, 1)")
    """entropy_collapse: at most this fraction of the initial entropy, while the reward has not risen."""
    repetition: float = ranged(0.5, "(0, 1]")
    """repetition: the share of an answer's four-token sequences that occur in it before, mean of the rollout."""
    no_signal_steps: int = ranged(10, "[1, inf)")
    """no_signal: steps in a row in which all rewards within every group of completions were equal."""


@dataclass(frozen=True)
class RewardRefreshConfig:
    """Training of the `learned` reward's model on the policy's own answers during PPO."""

    every_steps: int = ranged(50, "[1, inf)")
    """PPO steps between refreshes."""
    num_steps: int = ranged(40, "[1, inf)")
    """Optimizer steps of the reward model at each refresh."""
    learning_rate: float = ranged(1e-3, "(0, inf)")
    """Of the reward model at each refresh."""
