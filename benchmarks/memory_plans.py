"""The estimates of docs/scaling.md: `python benchmarks/memory_plans.py`. Shapes are Qwen2.5's, nothing is loaded."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from transformers import Qwen2Config

from rl_distill.doctor.memory import GIB, Plan, Shape, student_gpu, teacher_gpu

SIZES = {
    "0.5B": (151936, 896, 4864, 24, 14, 2, True),
    "1.5B": (151936, 1536, 8960, 28, 12, 2, True),
    "7B": (152064, 3584, 18944, 28, 28, 4, False),
    "32B": (152064, 5120, 27648, 64, 40, 8, False),
    "72B": (152064, 8192, 29568, 80, 64, 8, False),
}
COMMON = {"gradient_checkpointing": True, "micro_batch_size": 4, "generation_batch_size": 32}
SPLIT_4_4 = {"num_gpus": 4, "placement": "dedicated", "teacher_gpus": 4, "teacher_sharded": True}
RECIPES = [
    (1, "0.5B", "7B", "one_process", Plan(**COMMON)),
    (1, "0.5B", "7B", "one_process", Plan(teacher_quantization="4bit", **COMMON)),
    (2, "0.5B", "7B", "ddp", Plan(num_gpus=2, **COMMON)),
    (2, "1.5B", "7B", "ddp", Plan(num_gpus=1, placement="dedicated", **COMMON)),
    (4, "1.5B", "7B", "zero2", Plan(num_gpus=4, zero_stage=2, **COMMON)),
    (4, "1.5B", "32B", "zero2", Plan(num_gpus=3, zero_stage=2, placement="dedicated", **COMMON)),
    (8, "1.5B", "32B", "zero2", Plan(num_gpus=6, zero_stage=2, placement="dedicated", teacher_gpus=2, **COMMON)),
    (8, "7B", "32B", "zero3", Plan(num_gpus=6, zero_stage=3, placement="dedicated", teacher_gpus=2, **COMMON)),
    (4, "1.5B", "32B", "zero3", Plan(num_gpus=4, zero_stage=3, teacher_sharded=True, **COMMON)),
    (8, "1.5B", "72B", "zero2", Plan(zero_stage=2, **SPLIT_4_4, **COMMON)),
    (8, "1.5B", "72B", "zero2", Plan(num_gpus=4, zero_stage=2, placement="remote", **COMMON)),
]


def shape(size: str) -> Shape:
    vocab, hidden, intermediate, layers, heads, kv_heads, tied = SIZES[size]
    config = Qwen2Config(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        tie_word_embeddings=tied,
    )
    return Shape.of(config)


def main() -> None:
    print("| GPUs | student | teacher | launch file | placement | GiB per student GPU | GiB per teacher GPU |")
    print("|---|---|---|---|---|---|---|")
    shapes = {size: shape(size) for size in SIZES}
    for num_gpus, student, teacher, launch_file, plan in RECIPES:
        known = shapes[teacher]
        placement = plan.placement + (", sharded" if plan.teacher_sharded else "")
        placement += f", {plan.teacher_quantization}" if plan.teacher_quantization else ""
        ours = student_gpu(shapes[student], known, plan)["peak"] / GIB
        theirs = f"{teacher_gpu(known, plan)['peak'] / GIB:.0f}" if plan.placement == "dedicated" else "-"
        print(f"| {num_gpus} | {student} | {teacher} | {launch_file} | {placement} | {ours:.0f} | {theirs} |")


if __name__ == "__main__":
    main()
