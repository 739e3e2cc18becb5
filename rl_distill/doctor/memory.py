"""Expected memory of one GPU by ZeRO stage and placement: weights, optimizer, teacher, activations, KV cache.

An estimate from shapes alone, meant to be right within about a quarter; no GPU is needed.
Sources: Rajbhandari et al. 2020 (ZeRO: 2 + 2 + 12 bytes per parameter), Dettmers et al. 2023 (QLoRA: bytes of NF4 with
double quantization).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

GIB = 1 << 30
ZeroStage = Literal[0, 1, 2, 3]
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
QUANTIZED_BYTES = {"8bit": 1.0, "4bit": 0.5 + 1 / 64 + 4 / (64 * 256)}
"""bitsandbytes, per weight of a linear layer; NF4: a byte of scale per 64, and float32 per 256 of those."""
CHUNK_LOGITS_BYTES = 4 * 2**27 * 4  # logprobs.py: logits of one chunk, four arrays of their size alive at the peak
CONTEXT_BYTES = GIB  # CUDA context, cuBLAS and NCCL buffers
FRAGMENTATION = 1.1


@dataclass(frozen=True)
class Shape:
    """What decides a model's memory. `num_kv` is the size of one key (all key/value heads together)."""

    parameters: int
    hidden: int
    intermediate: int
    layers: int
    num_kv: int
    vocab: int
    tied: bool = True
    """The head is the embedding."""

    @classmethod
    def of(cls, config: Any) -> Shape:
        """From a Hugging Face config; parameters are counted on the meta device, tied ones once, nothing is loaded."""
        import torch

        from ..models.loading import auto_class

        with torch.device("meta"):
            model = auto_class(config).from_config(config)
        count = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
        text = config.get_text_config()
        heads = text.num_attention_heads
        head = getattr(text, "head_dim", None) or text.hidden_size // heads
        kv = (getattr(text, "num_key_value_heads", None) or heads) * head
        return cls(
            count,
            text.hidden_size,
            getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
            text.num_hidden_layers,
            kv,
            text.vocab_size,
            config.tie_word_embeddings,
        )

    def weight_bytes(self, dtype: str, quantization: str | None) -> float:
        """All weights; quantized ones are those of the linear layers, embedding and head stay as they are."""
        size = DTYPE_BYTES[dtype]
        if quantization is None:
            return float(self.parameters * size)
        linear = self.linear_parameters
        return (self.parameters - linear) * size + linear * QUANTIZED_BYTES[quantization]

    @property
    def linear_parameters(self) -> int:
        """All but embedding and head (norms are too small to tell apart)."""
        return self.parameters - self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def trunk_parameters(self) -> int:
        """All but a head of its own."""
        return self.parameters - (0 if self.tied else self.vocab * self.hidden)

    def lora_parameters(self, r: int) -> int:
        """Of adapters of rank r on every linear layer (q, k, v, o, gate, up, down): r (in + out) each."""
        return self.layers * r * (9 * self.hidden + 2 * self.num_kv + 3 * self.intermediate)


@dataclass(frozen=True)
class Plan:
    """How a run uses its GPUs. `num_gpus`: those of the student; `split` gives the teacher `teacher_gpus` of its."""

    num_gpus: int = 1
    zero_stage: ZeroStage = 0
    placement: Literal["colocated", "dedicated", "remote"] = "colocated"
    teacher_gpus: int = 1
    teacher_sharded: bool = False
    """The teacher's weights, except its head, are sharded over the GPUs that hold it."""
    student_dtype: str = "float32"
    """Of frozen weights, under LoRA; those that train are float32, or in the hands of DeepSpeed's bf16 engine."""
    bf16: bool = True
    """bf16 activations: autocast over float32 weights, or DeepSpeed's bf16 engine."""
    teacher_dtype: str = "bfloat16"
    teacher_quantization: Literal["4bit", "8bit"] | None = None
    num_teachers: int = 1
    """Teachers that live side by side, each as large as the first."""
    student_quantization: Literal["4bit", "8bit"] | None = None
    lora_r: int | None = None
    separate_critic: bool = False
    gradient_checkpointing: bool = False
    micro_batch_size: int = 4
    generation_batch_size: int = 64
    prompt_length: int = 512
    completion_length: int = 512
    sampling_copy: bool = False
    """A bf16 copy of the policy samples (generation.dtype)."""

    @property
    def bf16_engine(self) -> bool:
        """Whether DeepSpeed keeps all weights in 16 bits and float32 copies of those that train."""
        return self.bf16 and self.zero_stage >= 1

    @property
    def half_weights(self) -> bool:
        """Whether the policy's weights rest in 16 bits."""
        return self.bf16_engine or (self.lora_r is not None and self.student_dtype != "float32")

    @property
    def weight_dtype(self) -> str:
        return "bfloat16" if self.half_weights else "float32"


def training_bytes(shape: Shape, plan: Plan) -> dict[str, float]:
    """Weights, gradients and Adam's state on one GPU, sharded as the ZeRO stage says.

    What trains (the policy or its adapters, and a separate critic's trunk) is float32 with 8 bytes of state per
    parameter, or under DeepSpeed's bf16 engine 2 bytes with a float32 copy (12).
    """
    size, state = (2, 12) if plan.bf16_engine else (4, 8)
    trained = shape.parameters if plan.lora_r is None else shape.lora_parameters(plan.lora_r)
    trained += shape.trunk_parameters if plan.separate_critic else 0
    weights = float(trained * size)
    if plan.lora_r is not None:
        weights += shape.weight_bytes(plan.weight_dtype, plan.student_quantization)
    stage, n = plan.zero_stage, plan.num_gpus
    return {
        "weights": weights / (n if stage >= 3 else 1),
        "gradients": trained * size / (n if stage >= 2 else 1),
        "optimizer": trained * state / (n if stage >= 1 else 1),
    }


def activation_bytes(shape: Shape, plan: Plan) -> float:
    """What one training micro-batch keeps for backward; with checkpointing one input per layer and one layer in full.

    Per token and layer of a Qwen2 with scaled_dot_product_attention, counted from the tensors that autograd saves:
    inputs of the products and norms, q, k, v, attention's output, gate, its activation, up and their product. Norms
    and, under autocast, the residual stream are in float32. Autocast also keeps a bf16 copy of the linear layers'
    weights, not of the head's, which computes in float32. A separate critic's trunk keeps as much again.
    """
    tokens = plan.micro_batch_size * (plan.prompt_length + plan.completion_length)
    h, rest, residual, copies = shape.hidden, 2 * shape.num_kv + 4 * shape.intermediate, 4, 0
    if plan.half_weights:
        layer, residual = tokens * (4 * 2 * h + 2 * (6 * h + rest)), 2
    elif plan.bf16:
        layer, copies = tokens * (4 * 4 * h + 2 * (7 * h + rest)), 2 * shape.linear_parameters
    else:
        layer = tokens * 4 * (8 * h + rest)
    trunks = 2 if plan.separate_critic else 1
    if plan.gradient_checkpointing:  # backward rebuilds one layer at a time
        return trunks * (shape.layers * tokens * h * residual + copies) + layer
    return trunks * (shape.layers * layer + copies)


def cache_bytes(shape: Shape, plan: Plan) -> float:
    """The KV cache of one generation batch at full length; sampling runs outside of autocast."""
    tokens = plan.generation_batch_size * (plan.prompt_length + plan.completion_length)
    dtype = "bfloat16" if plan.sampling_copy else plan.weight_dtype
    return tokens * shape.layers * 2 * shape.num_kv * DTYPE_BYTES[dtype]


def teacher_bytes(teacher: Shape, plan: Plan, num_gpus: int) -> float:
    """Its weights on one of `num_gpus` GPUs; sharded, the head is whole and two layers are gathered at a time."""
    size = DTYPE_BYTES[plan.teacher_dtype]
    if not plan.teacher_sharded:
        return teacher.weight_bytes(plan.teacher_dtype, plan.teacher_quantization)
    whole = teacher.vocab * teacher.hidden + 2 * teacher.parameters / teacher.layers
    return size * (teacher.parameters / num_gpus + whole)


def student_gpu(student: Shape, teacher: Shape, plan: Plan) -> dict[str, float]:
    """Bytes on one of the student's GPUs, by what they are for; "peak" is their sum as they are alive together."""
    parts = training_bytes(student, plan)
    teacher_size = DTYPE_BYTES[plan.teacher_dtype]
    if plan.placement == "colocated":
        parts["teacher"] = plan.num_teachers * teacher_bytes(teacher, plan, plan.num_gpus)
    elif plan.placement == "dedicated":
        parts["teacher's head"] = plan.num_teachers * teacher.vocab * teacher.hidden * teacher_size
    if plan.zero_stage >= 3:
        parts["gathered"] = float(student.parameters * DTYPE_BYTES[plan.weight_dtype])  # whole while it samples
    if plan.sampling_copy:
        parts["sampling copy"] = float(2 * student.parameters)
    parts["activations"] = activation_bytes(student, plan)
    parts["KV cache"] = cache_bytes(student, plan)
    parts["logits"] = float(CHUNK_LOGITS_BYTES + 4 * student.vocab * student.hidden)  # and the head's gradient
    parts["context"] = float(CONTEXT_BYTES)
    together = {
        name: size for name, size in parts.items() if name not in ("activations", "KV cache", "logits", "gathered")
    }
    training = parts["activations"] + parts["logits"]
    parts["peak"] = FRAGMENTATION * (
        sum(together.values()) + max(training, parts["KV cache"] + parts.get("gathered", 0.0))
    )
    return parts


def teacher_gpu(teacher: Shape, plan: Plan) -> dict[str, float]:
    """Bytes on one of the teacher's own GPUs under `split`: each scores its share of the rows."""
    size = DTYPE_BYTES[plan.teacher_dtype]
    tokens = plan.generation_batch_size * (plan.prompt_length + plan.completion_length)
    parts = {
        "weights": plan.num_teachers * teacher_bytes(teacher, plan, plan.teacher_gpus),
        "activations": float(tokens * (4 * teacher.hidden + 2 * teacher.intermediate) * size),
        "context": float(CONTEXT_BYTES),
    }
    parts["peak"] = FRAGMENTATION * sum(parts.values())
    return parts


def advice(peak: float, available: float, plan: Plan) -> str:
    """What to change, cheapest first, where the estimate does not fit; empty where it does."""
    if peak <= available:
        return ""
    steps = []
    if not plan.gradient_checkpointing:
        steps.append("set student.gradient_checkpointing: true")
    if plan.micro_batch_size > 1:
        steps.append(f"lower ppo.micro_batch_size (now {plan.micro_batch_size}; the result stays the same)")
    if plan.generation_batch_size > 8:
        steps.append(f"lower generation.batch_size (now {plan.generation_batch_size})")
    if plan.num_gpus > 1 and plan.zero_stage < 3:
        steps.append(f"use ZeRO stage {plan.zero_stage + 1 if plan.zero_stage else 2}")
    if plan.placement == "colocated" and plan.num_gpus > 1 and not plan.teacher_sharded:
        steps.append("shard the teacher (teacher.sharded)")
    if plan.teacher_quantization is None and plan.placement == "colocated" and not plan.teacher_sharded:
        steps.append("load the teacher in 8 or 4 bits (teacher.quantization)")
    if plan.placement == "colocated":
        steps.append("give the teacher GPUs of its own or a server")
    if plan.lora_r is None:
        steps.append("train with LoRA (student.lora)")
    return "; ".join(steps) or "use more or larger GPUs"
