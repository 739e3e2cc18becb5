"""CPU milliseconds per token of log-probability, entropy and exact KL at real vocabularies, beside plain PyTorch.

    python benchmarks/token_statistics.py [--tokens 256] [--repeats 5] [--threads 1]

Random weights of the real shapes, a teacher of the student's own shape, float32, on this machine's CPU. The two ways
take turns, and each has the fastest of its repeats. CPU seconds of the whole process, so that other programs on the
machine count little. `memory` is what plain PyTorch's logits of both models take in the forward.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from torch import Tensor

from rl_distill.maths.logprobs import token_statistics

SHAPES = {
    "SmolLM2-135M": (49_152, 576),
    "Qwen2.5-0.5B": (151_936, 896),
    "Qwen3-0.6B": (151_936, 1024),
    "Qwen2.5-1.5B": (151_936, 1536),
}
Statistics = tuple[Tensor, Tensor, Tensor]


def ours(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, teacher_ND: Tensor, teacher_VD: Tensor) -> Statistics:
    found = token_statistics(
        hidden_ND, weight_VD, targets_N, teacher_hidden_NE=teacher_ND, teacher_weight_VE=teacher_VD
    )
    assert found.kl_N is not None
    return found.logprobs_N, found.entropy_N, found.kl_N


def plain(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, teacher_ND: Tensor, teacher_VD: Tensor
) -> Statistics:
    logp_NV = (hidden_ND @ weight_VD.T).log_softmax(-1)
    with torch.no_grad():
        teacher_NV = (teacher_ND @ teacher_VD.T).log_softmax(-1)
    p_NV = logp_NV.exp()
    kl_N = (p_NV * (logp_NV - teacher_NV)).sum(-1)
    return logp_NV.gather(1, targets_N[:, None])[:, 0], -(p_NV * logp_NV).sum(-1), kl_N


def seconds(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def row(name: str, num_tokens: int, repeats: int) -> str:
    vocab, width = SHAPES[name]
    torch.manual_seed(0)
    student_VD, teacher_VD = (torch.randn(vocab, width) / width**0.5 for _ in range(2))
    hidden_ND, teacher_ND = torch.randn(2, num_tokens, width)
    targets_N = torch.randint(vocab, (num_tokens,))
    inputs = hidden_ND.requires_grad_(), student_VD.requires_grad_(), targets_N, teacher_ND, teacher_VD
    both = {"ours": ours, "plain": plain}
    fastest = dict.fromkeys([(way, part) for way in both for part in ("forward", "both")], float("inf"))

    def forward(way: str) -> None:
        with torch.no_grad():
            both[way](*inputs)

    def trained(way: str) -> None:
        hidden_ND.grad = student_VD.grad = None
        sum(x.sum() for x in both[way](*inputs)).backward()  # type: ignore[union-attr]

    for _ in range(repeats):
        for way in both:
            for part, work in (("forward", forward), ("both", trained)):
                fastest[way, part] = min(fastest[way, part], seconds(lambda work=work, way=way: work(way)))  # type: ignore[misc]
    cells = [f"{1000 * fastest[way, part] / num_tokens:.2f}" for part in ("forward", "both") for way in both]
    memory = 2 * 4 * vocab * num_tokens / 2**20
    return f"| {name} | {vocab:,} | {width:,} | {' | '.join(cells)} | {memory:.0f} MiB |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("| shape | vocabulary | width | forward, ours | plain | with backward, ours | plain | memory |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in args.shapes:
        print(row(name, args.tokens, args.repeats), flush=True)


if __name__ == "__main__":
    main()
