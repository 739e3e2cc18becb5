"""PPO at real shapes with random weights: tokens per second by phase, peak memory against the doctor's estimate.

    python benchmarks/gpu.py                        # one CUDA device: a 0.5B student under a colocated 7B teacher
    python benchmarks/gpu.py --rows tiny            # seconds on a CPU: shows that everything runs

No model hub and no network: models are made from configs, prompts from random ids. The first step is warm-up.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

QWEN_05B = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14}
QWEN_05B |= {"num_key_value_heads": 2, "vocab_size": 151_936, "tie_word_embeddings": True}
QWEN_7B = {"hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28, "num_attention_heads": 28}
QWEN_7B |= {"num_key_value_heads": 4, "vocab_size": 152_064, "tie_word_embeddings": False}
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY |= {"num_key_value_heads": 2, "vocab_size": 512, "tie_word_embeddings": True}
NUM_TOKENS = 151_665  # ids of Qwen2.5's tokenizer; the rows above it are padding

ROWS: dict[str, dict[str, Any]] = {
    "tiny": {"student": TINY, "teacher": TINY, "length": 16, "batch": 8, "tokens": 500, "critic": "teacher_informed"},
    "0.5B under 7B": {"student": QWEN_05B, "teacher": QWEN_7B, "length": 512, "batch": 64, "tokens": NUM_TOKENS},
    "0.5B under 7B, checkpointing": {
        "student": QWEN_05B, "teacher": QWEN_7B, "length": 512, "batch": 64, "tokens": NUM_TOKENS,
        "gradient_checkpointing": True,
    },
    "0.5B under 7B, bf16 sampling": {
        "student": QWEN_05B, "teacher": QWEN_7B, "length": 512, "batch": 64, "tokens": NUM_TOKENS, "dtype": "bfloat16",
    },
}  # fmt: skip


def half(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """The reward of the measured run: the share of even ids."""
    return [sum(i % 2 == 0 for i in ids) / max(1, len(ids)) for ids in completion_ids]


def make_tokenizer(num_tokens: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1, "<unk>": 2, **{f"t{i}": i for i in range(3, num_tokens)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )


def make_model(shape: dict[str, Any], dtype: Any, device: Any) -> Any:
    """A random Qwen2 whose generation never ends by EOS, so that every completion has its full length."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(**shape, max_position_embeddings=4096, eos_token_id=1, bos_token_id=None, pad_token_id=0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Qwen2ForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    return model


def make_trainer(row: dict[str, Any], steps: int, folder: Path) -> Any:
    import torch

    from rl_distill import distributed, pipeline
    from rl_distill.config import load_config
    from rl_distill.run_setup import RunContext
    from rl_distill.teachers.colocated import make_teacher
    from rl_distill.types import Problem, Splits

    sys.modules.setdefault("benchmarks.gpu", sys.modules[__name__])
    device = distributed.device()
    on_gpu = device.type == "cuda"
    config = load_config(
        None,
        {
            "output_dir": str(folder),
            "report_to": [],
            "rewards": [{"fn": "benchmarks.gpu:half", "weight": 1.0}],
            "anchor": {"schedule": "fixed", "coef": 0.1},
            "student": {"gradient_checkpointing": row.get("gradient_checkpointing", False)},
            "teacher": {"micro_batch_size": 8},
            "ppo": {
                "num_steps": steps,
                "batch_size": row["batch"],
                "micro_batch_size": 4,
                "num_minibatches": 2,
                "critic": row.get("critic", "teacher_informed"),
                "critic_warmup_steps": 0,
                "warmup_steps": 0,
                "learning_rate": 1e-6,
                "value_learning_rate": 1e-5,
                "bf16": on_gpu,
            },
            "generation": {
                "max_completion_length": row["length"],
                "batch_size": row["batch"],
                "dtype": row.get("dtype", "student"),
            },
            "evaluation": {"every_steps": 10_000},
        },
    )
    tokenizer = make_tokenizer(row["tokens"])
    torch.manual_seed(0)
    teacher = make_model(row["teacher"], torch.bfloat16 if on_gpu else torch.float32, device)
    student = make_model(row["student"], torch.float32, device)
    draw = torch.Generator().manual_seed(0)
    problems = []
    for number in range(row["batch"] * steps):
        ids = torch.randint(3, row["tokens"], (row["length"],), generator=draw).tolist()
        problems.append(Problem("words", str(number), " ".join(f"t{i}" for i in ids)))
    splits = Splits(cold_start=[], train=problems, validation=problems[:1], test=problems[:1])
    context = RunContext(splits, make_teacher(config, teacher, tokenizer), student, tokenizer, {}, 0)
    trainer = pipeline.make_trainer(config, context)
    trainer.args.save_strategy = "no"
    return trainer


def estimate(row: dict[str, Any], trainer: Any) -> float:
    """GiB that the doctor expects."""
    from rl_distill.doctor import memory

    plan = memory.Plan(
        micro_batch_size=4,
        generation_batch_size=row["batch"],
        prompt_length=row["length"],
        completion_length=row["length"],
        gradient_checkpointing=row.get("gradient_checkpointing", False),
        sampling_copy="dtype" in row,
    )
    policy, teacher = trainer.actor_critic.policy, trainer.collector.teacher.model
    return memory.student_gpu(memory.Shape.of(policy.config), memory.Shape.of(teacher.config), plan)["peak"] / 2**30


def measure(name: str, steps: int) -> dict[str, Any]:
    """Medians over the steps after the first."""
    import statistics

    import torch
    from transformers import TrainerCallback

    from rl_distill.reporting.training_log import MetricsWriter

    row = ROWS[name]
    cuda = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(row, steps, Path(folder))
        taken: list[dict[str, float]] = []

        class Watch(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.global_step % 2 == 0:
                    if cuda:
                        torch.cuda.synchronize()
                    now = time.perf_counter()
                    taken.append({"step": now - self.start, **trainer.phases.take()})
                    self.start = now

            def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
                self.start = time.perf_counter()

        trainer.add_callback(Watch())
        trainer.remove_callback(MetricsWriter)
        expected = estimate(row, trainer)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    seconds = {key: statistics.median(t.get(key, 0.0) for t in taken[1:]) for key in taken[-1]}
    tokens = row["batch"] * row["length"]
    last = next(record for record in reversed(trainer.state.log_history) if "loss" in record)
    return {
        "row": name,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "torch": torch.__version__,
        "seconds": seconds,
        "completion_tokens_per_second": tokens / seconds["step"],
        "sampled_tokens_per_second": tokens / seconds["generate"],
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
        "estimated_gib": expected,
        "kl": last["kl"],
        "loss": last["loss"],
        "grad_norm": last["grad_norm"],
    }


def measure_decoding(steps: int) -> Iterator[dict[str, Any]]:
    """Sampled tokens per second of the 0.5B student, 64 x (512 + 256), by each way to decode; every second row after
    one call of warm-up.
    """
    import torch

    from rl_distill.generation import decoding, sampling

    def plain(model: Any, max_new_tokens: int) -> Any:
        return decoding.PlainDecoder(model)

    rows, length, new = 64, 512, 256
    draw = torch.Generator().manual_seed(0)
    prompts = torch.randint(3, NUM_TOKENS, (rows, length), generator=draw).tolist()
    for dtype in (torch.float32, torch.bfloat16):
        model = make_model(QWEN_05B, dtype, "cuda").eval()

        def ours(make_decoder: Any, model: Any = model) -> None:
            sampling.make_decoder = make_decoder
            given = {"eos_token_ids": [], "pad_token_id": 0, "batch_size": rows, "vocab_size": NUM_TOKENS}
            model.generation_config.eos_token_id = None
            sampling.generate(model, prompts, sampling.Sampling(new), **given)

        def library(model: Any = model) -> None:
            given = {"do_sample": True, "max_new_tokens": new, "top_k": 0, "eos_token_id": None, "pad_token_id": 0}
            model.generate(torch.tensor(prompts).cuda(), **given)

        def paged(model: Any = model) -> None:
            from transformers import GenerationConfig

            config = GenerationConfig(do_sample=True, max_new_tokens=new, eos_token_id=-1, pad_token_id=0)
            model.generate_batch(inputs=prompts, generation_config=config, progress_bar=False)

        graphed = decoding.make_decoder
        ways = {"plain": lambda: ours(plain), "CUDA graph": lambda: ours(graphed)}  # noqa: B023
        ways |= {"transformers generate": library, "transformers paged generate_batch": paged}
        for name, decode in ways.items():
            seconds = []
            try:
                for _ in range(steps):
                    torch.cuda.synchronize()
                    start = time.perf_counter()
                    decode()
                    torch.cuda.synchronize()
                    seconds.append(time.perf_counter() - start)
            except Exception as error:  # of a library on this machine: the other rows still count
                yield {"decoding": name, "dtype": str(dtype), "failed": repr(error)[:300]}
                continue
            finally:
                sampling.make_decoder = graphed
            yield {"decoding": name, "dtype": str(dtype), "tokens_per_second": rows * new / min(seconds[1:] or seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=[name for name in ROWS if name != "tiny"], choices=list(ROWS))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--output", type=Path, help="a file of JSON lines")
    parser.add_argument("--decoding", action="store_true", help="ways to decode instead of PPO steps; needs CUDA")
    options = parser.parse_args()
    measured = (
        measure_decoding(options.steps) if options.decoding else (measure(n, options.steps) for n in options.rows)
    )
    for result in measured:
        print(json.dumps(result), flush=True)
        if options.output:
            with options.output.open("a") as file:
                file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
