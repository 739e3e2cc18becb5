"""The settings of a run: dataclasses, YAML files with a `base`, and overrides such as `--ppo.learning_rate 1e-4`.

Imports without torch, so that a typo is answered before anything heavy starts. A wrong key names the nearest one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from .reading import plain


@dataclass(frozen=True)
class TinyModelConfig:
    """Shape of an demo Qwen2 model (randomly initialised, tied embeddings)."""

    hidden_size: int = 96
    intermediate_size: int = 256
    num_layers: int = 2
    num_heads: int = 4


@dataclass(frozen=True)
class SFTStageConfig:
    """One supervised stage on TRL's SFTTrainer: `num_steps` optimizer steps of `batch_size` sequences."""

    num_steps: int = 500
    batch_size: int = 32
    learning_rate: float = 3e-3
    warmup_steps: int = 50


@dataclass(frozen=True)
class DemoConfig:
    """The demo default: tasks, a teacher and a worse student made here, without a model hub."""

    vocab_size: int = 448
    math_share: float = 0.7
    teacher_math_share: float = 0.7
    num_teacher_problems: int = 20_000
    num_teacher_outputs: int = 1_000
    num_train_prompts: int = 12_000
    num_validation: int = 400
    num_test: int = 1_000
    teacher: TinyModelConfig = field(default_factory=lambda: TinyModelConfig(128, 336, 3, 4))
    teacher_sft: SFTStageConfig = field(default_factory=SFTStageConfig)
    student: TinyModelConfig = field(default_factory=TinyModelConfig)
    student_sft: SFTStageConfig = field(default_factory=SFTStageConfig)


@dataclass(frozen=True)
class LoraAdapterConfig:
    """LoRA through peft for the policy; the value head is always trained in full."""

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"
    """A list of names such as [q_proj, v_proj], a pattern for whole names, or all-linear."""


@dataclass(frozen=True)
class StudentConfig:
    """`model`: a folder or hub id; None takes the demo student."""

    model: str | None = None
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    lora: LoraAdapterConfig | None = None
    quantization: Literal["4bit", "8bit"] | None = None
    """Load the student's frozen weights by bitsandbytes (CUDA); needs `lora`."""
    gradient_checkpointing: bool = False
    adapter: Literal["continue", "merge"] = "continue"
    """Where `model` is an adapter folder of peft: train that adapter further, or merge it first (then `lora` may start
    a new one)."""


@dataclass(frozen=True)
class TeacherServerConfig:
    """A teacher behind an OpenAI-compatible endpoint of vLLM, such as http://localhost:8000/v1."""

    base_url: str | None = None
    model: str | None = None
    """The name it is served under; None takes the first."""
    num_connections: int = 16
    timeout_s: float = 120.0
    """Seconds for one answer."""
    wait_s: float = 3600.0
    """Seconds that a run waits for a server that went away, before it ends with an error."""
    api_key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the key, where the server wants one."""


@dataclass(frozen=True)
class TeacherConfig:
    """`model`: a folder or hub id; None takes the demo teacher. `autocast`: bf16 scoring; auto = where fast."""

    model: str | None = None
    dtype: Literal["float32", "bfloat16", "auto"] = "auto"
    autocast: Literal["auto", "on", "off"] = "auto"
    micro_batch_size: int = 64
    num_evidence_prompts: int = 256
    """With your own data: training problems the teacher solves once, so that the anchor can follow the evidence."""
    placement: Literal["colocated", "dedicated", "remote"] = "colocated"
    """`shared`: in the student's processes. `split`: the last `num_processes` of the launch serve the teacher alone.
    `server`: at `server.base_url`; `model` then only names the tokenizer."""
    num_processes: int = 1
    quantization: Literal["4bit", "8bit"] | None = None
    """Weights by bitsandbytes, on CUDA; the head stays as it is."""
    sharded: bool = False
    """Share the weights out over the processes that hold the teacher (DeepSpeed ZeRO-3), where it fits on none."""
    server: TeacherServerConfig = field(default_factory=TeacherServerConfig)
    num_outputs_per_prompt: int = 0
    """Teacher texts per training prompt for BLEU/ROUGE (greedy when 1); 0 = the teacher only scores."""
    selection: Literal["by_task", "ensemble", "curriculum"] = "by_task"
    """Of `teachers`. `by_task`: each task has its teacher. `ensemble`: the mean of their distributions. `curriculum`:
    the first, and on to the next whenever the student has caught up with it on the validation problems."""
    tasks: tuple[str, ...] = ()
    """In an entry of `teachers`, with selection `by_task`: those it teaches; none: all that no other entry names."""
    switch_gap: float = 0.02
    """With selection `curriculum`: the lead in validation accuracy at or below which the next teacher takes over."""


@dataclass(frozen=True)
class DataConfig:
    """Your own prompts, with a `prompt` or `messages` column; other columns reach the rewards.

    Each split is a hub id (`name` or `name:split`), a .jsonl, .json, .parquet or .csv file, a pattern such as
    "data/*.jsonl", a folder (of such files, or of save_to_disk), or a list of these.
    """

    train: str | tuple[str, ...] | None = None
    validation: str | tuple[str, ...] | None = None
    test: str | tuple[str, ...] | None = None
    config_name: str | None = None
    prompt_column: str = "prompt"
    prompt_template: str | None = None
    """Python format string over the columns, for example "Q: {question}\\nA:"; used in place of `prompt_column`."""
    chat: bool = False
    """Put a text prompt into the tokenizer's chat template as one user turn; lists of messages always are."""
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    """Handed to the chat template, such as {enable_thinking: false}; a column of that name does so per row."""
    task: str = "default"
    max_prompt_length: int | None = None
    """Tokens; None takes prompts of any length."""
    overlong_prompts: Literal["drop", "cut", "refuse"] = "drop"
    """What becomes of longer prompts: left out with a count, cut to their end, or an error."""


@dataclass(frozen=True)
class AnchorConfig:
    """The pull towards the teacher: KL(student || teacher) per token, times a coefficient.

    `schedule`: `fixed` (coef); `anneal` (coef to coef_end between anneal_start and anneal_end of the run);
    `adaptive` (aims at target_kl); `evidence` (per task, strong where the teacher's success is ahead of the student's).
    """

    placement: Literal["loss", "reward", "none"] = "loss"
    estimator: Literal["exact", "k1", "k2", "k3", "top_k"] = "exact"
    top_k: int = 32
    """With estimator top_k: the teacher's likeliest ids per token; all others count as one outcome."""
    schedule: Literal["fixed", "anneal", "adaptive", "evidence"] = "evidence"
    coef: float = 1.0
    coef_end: float = 0.05
    anneal_start: float = 0.25
    anneal_end: float = 0.7
    target_kl: float = 0.1
    horizon: int = 10_000
    evidence_floor: float = 0.05
    evidence_scale: float = 0.15
    evidence_decay: float = 0.9


@dataclass(frozen=True)
class PPOConfig:
    """One step = one rollout of `batch_size` completions (all processes together), then its updates.

    A step does exactly num_epochs x num_minibatches optimizer steps. `micro_batch_size` only bounds memory:
    it changes how gradients are accumulated, never the result.
    """

    num_steps: int = 350
    batch_size: int = 128
    group_size: int = 1
    num_epochs: int = 1
    num_minibatches: int = 4
    micro_batch_size: int = 32
    advantage: Literal["gae", "group_mean"] = "gae"
    critic: Literal["teacher_informed", "shared", "separate"] = "teacher_informed"
    critic_warmup_steps: int = 5
    policy_coef: float = 1.0
    value_coef: float = 0.5
    entropy_coef: float = 0.0
    gamma: float = 1.0
    lam: float = 0.95
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    value_clip: float | None = 0.2
    normalize_advantages: Literal["none", "center", "standardize"] = "standardize"
    learning_rate: float = 7e-4
    value_learning_rate: float = 3e-3
    final_learning_rate_fraction: float = 0.3
    warmup_steps: int = 10
    weight_decay: float = 0.0
    adam_beta2: float = 0.95
    max_grad_norm: float = 1.0
    bf16: bool = False
    stop_at_kl: float | None = 50.0
    """Stop with an error when the mean KL to the teacher of a rollout exceeds this; the last checkpoint is kept."""
    stop_at_unscored_steps: int | None = 3
    """Stop with an error after so many steps in a row in which no reward scored anything; None never does."""


@dataclass(frozen=True)
class VLLMConfig:
    """TRL's VLLMGeneration. `server_base_url`: of a running `vllm serve`; the others are for colocated engines."""

    server_base_url: str | None = None
    gpu_memory_utilization: float = 0.3
    """Share of a GPU's memory that the colocated engine takes."""
    tensor_parallel_size: int = 1
    max_model_length: int | None = None
    """Tokens of prompt and completion together; None takes the model's."""
    sleep: bool = False
    """Free the engine's memory while the student trains."""


@dataclass(frozen=True)
class GenerationConfig:
    """Sampling of rollouts; evaluation is greedy with the same length limit."""

    max_completion_length: int = 48
    temperature: float = 1.0
    temperature_end: float | None = None
    """Where given, the temperature goes linearly from `temperature` at the first step to this at the last."""
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    """A completion ends after any of these texts, as after an EOS."""
    batch_size: int = 64
    engine: Literal["transformers", "vllm_colocate", "vllm_server"] = "transformers"
    sampler_weight_cap: float = 2.0
    """With vLLM: advantages are multiplied by min(trainer's / sampler's probability, this) per token."""
    vllm: VLLMConfig = field(default_factory=VLLMConfig)


@dataclass(frozen=True)
class DistributedConfig:
    """Several processes. `timeout_s`: seconds that one may be silent, or keep the others waiting, before all end."""

    timeout_s: float = 1800.0


@dataclass(frozen=True)
class CheckpointConfig:
    """`keep_last` older checkpoints are removed, the best by validation never. One is written after the last step."""

    every_steps: int = 1000
    """PPO steps between checkpoints."""
    every_minutes: float | None = 15.0
    """Minutes after which one is written at the end of a PPO step; None: by steps alone."""
    keep_last: int = 2


@dataclass(frozen=True)
class EvaluationConfig:
    """Validation problems are solved every `every_steps` PPO steps; `patience` evaluations without progress stop."""

    every_steps: int = 50
    patience: int | None = None
    load_best: bool = False
    """Save a checkpoint at every new best validation accuracy, and export the best one instead of the last."""
    batch_size: int = 128
    num_samples_shown: int = 8


@dataclass(frozen=True)
class RewardRefreshConfig:
    """Training of the `learned` reward's model on the policy's own answers during PPO."""

    every_steps: int = 50
    """PPO steps between refreshes."""
    num_steps: int = 40
    """Optimizer steps of the reward model at each refresh."""
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class RunConfig:
    """Everything a run needs. `demo: null` in a config of your own needs student.model, teacher.model and data."""

    seed: int = 0
    output_dir: str = "runs/demo"
    cache_dir: str | None = None
    """Where models and teacher outputs made once are kept; None is `cache` under output_dir."""
    resume_from_checkpoint: str | None = None
    """"latest" or the path of a checkpoint folder."""
    report_to: tuple[str, ...] = ("tensorboard",)
    log_completions_every: int | None = None
    """PPO steps between files of sampled completions with their rewards, in output_dir/completions."""
    num_threads: int | None = None
    """torch threads on CPU; None chooses from cores, processes and load."""
    demo: DemoConfig | None = field(default_factory=DemoConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    teachers: tuple[dict[str, Any], ...] = ()
    """Several teachers: each entry says what differs from `teacher`, such as {model: ..., tasks: [math]}."""
    data: DataConfig = field(default_factory=DataConfig)
    rewards: tuple[dict[str, Any], ...] = ({"fn": "task_check", "weight": 1.0},)
    reward_refresh: RewardRefreshConfig | None = None
    anchor: AnchorConfig = field(default_factory=AnchorConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    distributed: DistributedConfig = field(default_factory=DistributedConfig)

    @property
    def num_teacher_processes(self) -> int:
        """How many processes of the launch hold nothing but the teacher."""
        placements = {entry.get("placement", self.teacher.placement) for entry in self.teachers}
        return self.teacher.num_processes if "dedicated" in (placements or {self.teacher.placement}) else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers: what `results.json` records and what `load_config` reads back."""
        return plain(dataclasses.asdict(self))
