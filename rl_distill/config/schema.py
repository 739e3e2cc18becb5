"""The settings of a run: its models, its data, and what trains the student (the latter in training.py).

Every number has its range beside it and every field its meaning below it. Imports no torch, so that a typo is answered
before anything heavy starts.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass, field
from typing import Any, Literal

from .distillation import DistillConfig, WarmUpConfig
from .ranges import ranged
from .reading import plain
from .sampling import MixtureEntry, Preset, SamplingConfig
from .training import (
    AlarmsConfig,
    AnchorConfig,
    CheckpointConfig,
    DistributedConfig,
    EvaluationConfig,
    GenerationConfig,
    PPOConfig,
    RewardRefreshConfig,
)


@dataclass(frozen=True)
class TinyModelConfig:
    """Shape of a demo Qwen2 model (randomly initialised, tied embeddings)."""

    hidden_size: int = ranged(96, "[1, inf)")
    """A multiple of twice num_heads."""
    intermediate_size: int = ranged(256, "[1, inf)")
    """Width of the MLP."""
    num_layers: int = ranged(2, "[1, inf)")
    """Transformer blocks."""
    num_heads: int = ranged(4, "[1, inf)")
    """Attention heads."""


@dataclass(frozen=True)
class SFTStageConfig:
    """One supervised stage on TRL's SFTTrainer: `num_steps` optimizer steps of `batch_size` sequences."""

    num_steps: int = ranged(500, "[1, inf)")
    """Optimizer steps."""
    batch_size: int = ranged(32, "[1, inf)")
    """Sequences per optimizer step, all processes together."""
    learning_rate: float = ranged(3e-3, "(0, inf)")
    """Peak learning rate."""
    warmup_steps: int = ranged(50, "[0, inf)")
    """Steps of linear learning-rate warm-up."""


@dataclass(frozen=True)
class DemoConfig:
    """The demo default: tasks, a teacher and a worse student made here, without a model hub."""

    vocab_size: int = ranged(448, "[258, inf)")
    """Tokens of the tokenizer: the 256 bytes, two special tokens, and merges."""
    math_share: float = ranged(0.7, "[0, 1]")
    """Word problems among the student's problems; the rest are short functions."""
    teacher_math_share: float = ranged(0.7, "[0, 1]")
    """The same of the teacher's training problems."""
    num_teacher_problems: int = ranged(20_000, "[1, inf)")
    """Problems with solutions that the teacher learns from."""
    num_teacher_outputs: int = ranged(1_000, "[1, inf)")
    """Texts the teacher writes for the student's cold start."""
    only_verified: bool = False
    """Keep only the texts that pass the check for the cold start."""
    num_train_prompts: int = ranged(12_000, "[1, inf)")
    """Prompts of the rollouts; none of them is among those the teacher writes for."""
    num_labelled_prompts: int | None = ranged(None, "[0, inf)")
    """Of these, so many keep their gold answers and tests; the others, and those the teacher writes for, have none.
    None: all keep them."""
    num_validation: int = ranged(400, "[1, inf)")
    """Held-out problems solved during training."""
    num_test: int = ranged(1_000, "[1, inf)")
    """Held-out problems solved before and after."""
    teacher: TinyModelConfig = field(default_factory=lambda: TinyModelConfig(128, 336, 3, 4))
    """The teacher's shape."""
    teacher_sft: SFTStageConfig = field(default_factory=SFTStageConfig)
    """The teacher's training."""
    student: TinyModelConfig = field(default_factory=TinyModelConfig)
    """The student's shape."""
    student_sft: SFTStageConfig = field(default_factory=SFTStageConfig)
    """The student's cold start."""


@dataclass(frozen=True)
class LoraAdapterConfig:
    """LoRA through peft for the policy; the value head is always trained in full."""

    r: int = ranged(16, "[1, inf)")
    """Rank of the adapters."""
    alpha: int = ranged(32, "[1, inf)")
    """The adapters' output is scaled by alpha / r."""
    dropout: float = ranged(0.0, "[0, 1)")
    """Dropout on the adapters' input."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """A list of names such as [q_proj, v_proj], a pattern for whole names, or all-linear."""


@dataclass(frozen=True)
class StudentConfig:
    """The model that is trained."""

    model: str | None = None
    """A folder or hub id; None takes the demo student."""
    arch: str | None = None
    """In place of `model`: cut from the teacher when the run starts, such as teacher:50% (of its layers) or
    "teacher:layers=block_influence:50%;ffn=0.75;heads=2"."""
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    """Data type of the weights; auto: the checkpoint's."""
    lora: LoraAdapterConfig | None = None
    """Train adapters and leave the student's own weights as they are."""
    quantization: Literal["4bit", "8bit"] | None = None
    """Load the student's frozen weights by bitsandbytes (CUDA); needs `lora`."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more compute."""
    adapter: Literal["continue", "merge"] = "continue"
    """Where `model` is an adapter folder of peft: train that adapter further, or merge it first (then `lora` may start
    a new one)."""


@dataclass(frozen=True)
class TeacherServerConfig:
    """A teacher behind an OpenAI-compatible endpoint of vLLM."""

    base_url: str | None = None
    """Such as http://localhost:8000/v1."""
    model: str | None = None
    """Its name on the server; None: the first model the server lists."""
    num_connections: int = ranged(16, "[1, inf)")
    """Concurrent requests."""
    timeout_s: float = ranged(120.0, "(0, inf)")
    """Timeout of one request, in seconds."""
    wait_s: float = ranged(3600.0, "[0, inf)")
    """How long to wait for an unreachable server before the run fails, in seconds."""
    api_key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key, if the server needs one."""


@dataclass(frozen=True)
class TextAPIConfig:
    """A chat-completions API (OpenAI's, or one like it) that writes the teacher's texts; it scores nothing."""

    url: str | None = None
    """Up to the version, such as https://api.openai.com/v1."""
    model: str | None = None
    """The model's name at the API."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key, if the API needs one."""
    num_connections: int = ranged(8, "[1, inf)")
    """Concurrent requests."""
    timeout_s: float = ranged(300.0, "(0, inf)")
    """Timeout of one request, in seconds."""
    wait_s: float = ranged(3600.0, "[0, inf)")
    """How long to wait for an unreachable or rate-limited API before the run fails, in seconds."""


@dataclass(frozen=True)
class TeacherConfig:
    """The model that the student learns from. It never trains."""

    model: str | None = None
    """A folder or hub id; None takes the demo teacher."""
    dtype: Literal["float32", "bfloat16", "auto"] = "auto"
    """Data type of the weights; auto: the checkpoint's."""
    autocast: Literal["auto", "on", "off"] = "auto"
    """Score in bf16; auto: where that is fast."""
    micro_batch_size: int = ranged(64, "[1, inf)")
    """Rows per scoring forward; bounds memory."""
    num_evidence_prompts: int = ranged(1024, "[1, inf)")
    """With anchor.schedule evidence: prompts the teacher answers before training, divided evenly over the tasks."""
    num_evidence_samples: int = ranged(1, "[1, inf)")
    """Answers per evidence prompt, sampled as rollouts are; more than one where there are few prompts."""
    placement: Literal["colocated", "dedicated", "remote"] = "colocated"
    """`colocated`: in the student's processes. `dedicated`: the last `num_processes` of the launch serve the teacher
    alone. `remote`: at `server.base_url`; `model` then only names the tokenizer."""
    num_processes: int = ranged(1, "[1, inf)")
    """With placement dedicated: how many processes of the launch."""
    quantization: Literal["4bit", "8bit"] | None = None
    """Weights by bitsandbytes, on CUDA; the head stays as it is."""
    sharded: bool = False
    """Shard the weights over the processes that hold the teacher (DeepSpeed ZeRO-3), if it fits on none of them."""
    server: TeacherServerConfig = field(default_factory=TeacherServerConfig)
    """With placement remote: where the teacher is."""
    num_outputs_per_prompt: int = ranged(0, "[0, inf)")
    """Teacher texts per training prompt for BLEU/ROUGE (greedy when 1); 0 = the teacher only scores."""
    prompt_template: str | None = None
    """What the teacher sees in place of the student's prompt, such as "{prompt}\\nHint: {hint}": a format string over
    `prompt`, the data's columns and `solution`; in a chat it stands for the last user turn. The teacher then writes and
    scores under its own prompt."""
    text_api: TextAPIConfig | None = None
    """Who writes the teacher's texts (similarity rewards, warm-up, distillation) in place of the model that scores."""
    selection: Literal["by_task", "ensemble", "curriculum"] = "by_task"
    """Of `teachers`. `by_task`: each task has its teacher. `ensemble`: the mean of their distributions. `curriculum`:
    the first, and on to the next whenever the student has caught up with it on the validation problems."""
    tasks: tuple[str, ...] = ()
    """In an entry of `teachers`, with selection `by_task`: those it teaches; none: all that no other entry names."""
    switch_gap: float = ranged(0.02, "[-1, 1]")
    """With selection `curriculum`: the lead in validation accuracy at or below which the next teacher takes over."""


@dataclass(frozen=True)
class DataConfig:
    """Your own prompts, with a `prompt` or `messages` column; other columns reach the rewards.

    Each split is a hub id (`name` or `name:split`), a .jsonl, .json, .parquet or .csv file, a pattern such as
    "data/*.jsonl", a folder (of such files, or of save_to_disk), or a list of these.
    """

    train: str | tuple[str, ...] | None = None
    """Where the training prompts are."""
    mixture: tuple[MixtureEntry, ...] | None = None
    """In place of `train`: sources with their shares, such as [{train: a.jsonl, task: math, share: 0.7}]."""
    share_by: Literal["rows", "tokens"] = "rows"
    """What the shares of `mixture` are shares of: rows, or their tokens (prompt and completion)."""
    mixture_preset: Preset | None = None
    """Shares by the `part` of the entries: 30 % of `general`, or 30, 40 or 50 % of `domain`, the rest of the
    others; `share` then divides what a part has."""
    validation: str | tuple[str, ...] | None = None
    """The same for validation; None holds out 5 % of the training prompts, at most 200."""
    test: str | tuple[str, ...] | None = None
    """The same for the problems solved before and after; None takes the validation problems."""
    config_name: str | None = None
    """The hub dataset's configuration."""
    prompt_column: str = "prompt"
    """The column with the prompt: text, or a list of messages."""
    prompt_template: str | None = None
    """Python format string over the columns, for example "Q: {question}\\nA:"; used in place of `prompt_column`."""
    chat: bool = False
    """Put a text prompt into the tokenizer's chat template as one user turn; lists of messages always are."""
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    """Passed to the chat template, such as {enable_thinking: false}; a column of that name does so per row."""
    task: str = "default"
    """The task of rows without a `task` column."""
    max_prompt_length: int | None = ranged(None, "[1, inf)")
    """Tokens; None takes prompts of any length."""
    overlong_prompts: Literal["drop", "cut", "refuse"] = "drop"
    """What happens to longer prompts: dropped and counted, cut from the left, or an error."""


@dataclass(frozen=True)
class RunConfig:
    """Everything a run needs. `demo: null` in a config of your own needs student.model, teacher.model and data."""

    seed: int = ranged(0, "[0, 4294967295]")
    """Random seed of the whole run."""
    output_dir: str = "runs/demo"
    """Folder for everything the run writes."""
    cache_dir: str | None = None
    """Cache of models and teacher outputs; None: `cache` under output_dir."""
    resume_from_checkpoint: str | None = None
    """"latest" or the path of a checkpoint folder."""
    dry_run: bool = False
    """Stop before the first rollout and print what the run would do."""
    report_to: tuple[str, ...] | None = None
    """Trackers such as tensorboard, wandb or trackio; None: TensorBoard where it is installed, [] none."""
    push_to_hub: bool = False
    """Upload the exported student with its model card to the Hugging Face Hub at the end."""
    hub_model_id: str | None = None
    """Repository on the hub; None takes the name of output_dir."""
    hub_private_repo: bool | None = None
    """Whether a new repository is private; None takes the account's default."""
    log_completions_every: int | None = ranged(None, "[1, inf)")
    """PPO steps between files of sampled completions with their rewards, in output_dir/completions."""
    num_threads: int | None = ranged(None, "[1, inf)")
    """torch threads on CPU; None chooses from cores, processes and load."""
    chosen: dict[str, Any] = field(default_factory=dict)
    """Written by the run: settings that it chose for the student's size and tokenizer, each with the reason."""
    demo: DemoConfig | None = field(default_factory=DemoConfig)
    """The built-in problems and models; null if you bring your own models and data."""
    student: StudentConfig = field(default_factory=StudentConfig)
    """The model that is trained."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """The model that the student learns from."""
    teachers: tuple[dict[str, Any], ...] = ()
    """Several teachers: each entry says what differs from `teacher`, such as {model: ..., tasks: [math]}."""
    data: DataConfig = field(default_factory=DataConfig)
    """Your own prompts."""
    rewards: tuple[dict[str, Any], ...] = ({"fn": "task_check", "weight": 1.0},)
    """Reward functions with their weights, such as [{fn: math_answer, weight: 1.0}]."""
    reward_refresh: RewardRefreshConfig | None = None
    """Keeps a trained reward model near the policy; needs the reward `learned`."""
    warm_up: WarmUpConfig | None = None
    """A supervised stage on the teacher's texts before everything else."""
    distill: DistillConfig | None = None
    """A distillation stage before PPO; launch/distill.py runs it alone."""
    anchor: AnchorConfig = field(default_factory=AnchorConfig)
    """The pull towards the teacher."""
    ppo: PPOConfig = field(default_factory=PPOConfig)
    """The updates."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Which training prompts PPO draws."""
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    """The sampling of rollouts."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Validation during training."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """What a run can be resumed from."""
    alarms: AlarmsConfig = field(default_factory=AlarmsConfig)
    """When the run tells that something goes wrong."""
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    """Several processes."""

    @property
    def trackers(self) -> list[str]:
        """What the run reports to: `report_to`, by default TensorBoard where it is installed."""
        if self.report_to is not None:
            return list(self.report_to)
        return ["tensorboard"] if importlib.util.find_spec("tensorboard") else []

    @property
    def student_source(self) -> str | None:
        """The folder or hub id that the student's configuration, tokenizer and licence come from: its own, or that of
        the teacher which it is cut from."""
        return self.student.model if self.student.arch is None else self.teacher.model

    @property
    def num_teacher_processes(self) -> int:
        """How many processes of the launch hold nothing but the teacher."""
        placements = {entry.get("placement", self.teacher.placement) for entry in self.teachers}
        return self.teacher.num_processes if "dedicated" in (placements or {self.teacher.placement}) else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers: what `results.json` records and what `load_config` reads back."""
        return plain(dataclasses.asdict(self))
