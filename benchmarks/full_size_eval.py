"""The evaluation at full size without a hub or a GPU: all 1,319 GSM8K and 164 HumanEval problems, 1 and 2 processes.

    python benchmarks/full_size_eval.py --data FOLDER [--processes 1 2] [--max_new_tokens 64]

The model is random, of Qwen2's shape, with a tokenizer made from the benchmarks' own text in the manner of Qwen's:
byte-level BPE, single digits, ChatML, an embedding padded beyond the tokenizer. Its answers are noise; what is shown is
the plumbing, and that every number of processes makes the same completions. FOLDER holds gsm8k/ and humaneval/.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_model(data: Path, folder: Path) -> None:
    """A model folder as the hub would have it."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from rl_distill.demo.tiny import make_tokenizer
    from rl_distill.tasks.data import read_rows

    texts = [row["question"] + row["answer"] for row in read_rows(data / "gsm8k" / "train.jsonl")]
    texts += [row["prompt"] for row in read_rows(data / "humaneval" / "HumanEval.jsonl.gz")]
    tokenizer = make_tokenizer(texts, 4096)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=4224, hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"), pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def evaluate(args: argparse.Namespace, model: Path, processes: int) -> str:
    """Evaluates in a folder of its own, prints time and memory; returns a digest of all completions and verdicts."""
    folder = args.output_dir / str(processes)
    launch = ["-m", "accelerate.commands.launch", "--num_machines", "1", "--num_processes", str(processes)]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    launch += ["--multi_gpu"] if processes > 1 else ["--cpu"]
    script = [str(Path(__file__).parent.parent / "launch" / "eval.py"), "--model", str(model), "--batch_size", "64"]
    script += ["--tasks", "gsm8k", "humaneval", "--data_path", str(args.data), "--num_threads", "1", "--speed", "5"]
    script += ["--max_new_tokens", str(args.max_new_tokens), "--output_dir", str(folder), "--start_anew"]
    start = time.perf_counter()
    subprocess.run([sys.executable, *launch, *script], check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    seconds = time.perf_counter() - start
    results = json.loads((folder / "results.json").read_text())
    assert results["num_processes"] == processes
    made = hashlib.sha256()
    for name, entry in results["tasks"].items():
        found = entry["models"]["model"]
        print(f"{name} ({entry['protocol']}): {found['num_problems']} problems, {found['mean_tokens']:.1f} tokens each")
        for line in (folder / "model" / f"{name}.jsonl").read_text().splitlines():
            record = json.loads(line)
            made.update(json.dumps([record["completion"], record["scores"], record["finish"]]).encode())
    peak = results["models"]["model"]["peak_memory_mib"]
    print(f"processes: {processes}, {seconds:.1f} s in all, at most {peak} MiB in one process", flush=True)
    return made.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--max_new_tokens", type=int, default=64)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/full-size-eval"))
    args = parser.parse_args()
    model = args.output_dir / "model-folder"
    if not model.is_dir():
        make_model(args.data, model)
    made = {processes: evaluate(args, model, processes) for processes in args.processes}
    if len(set(made.values())) > 1:
        sys.exit(f"the completions differ: {made}")
    print(f"the same completions and verdicts with {' and '.join(map(str, made))} processes: {made[args.processes[0]]}")


if __name__ == "__main__":
    main()
