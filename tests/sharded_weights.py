"""Processes for teachers/test_zero3_sharded.py: each holds a share of a teacher and compares it with the whole one."""

import copy

import torch

from rl_distill import distributed
from rl_distill.config import TinyModelConfig
from rl_distill.demo.problems import make_problems
from rl_distill.demo.tiny import make_model, make_tokenizer
from rl_distill.generation.sampling import Sampling
from rl_distill.teachers.colocated import ColocatedTeacher
from rl_distill.teachers.zero3_sharded import Zero3ShardedTeacher

ROWS = {0: [0, 1, 2, 3], 1: [4]}
"""Of each process; in the second round the other one has none."""


def main() -> None:
    distributed.start(timeout_s=300)
    tokenizer = make_tokenizer([p.prompt + p.solution for p in make_problems("train", 40, 0)], 320)
    model = make_model(TinyModelConfig(48, 64, 2, 4), tokenizer, 1)
    options = {"eos_token_ids": [tokenizer.eos_token_id], "pad_token_id": tokenizer.pad_token_id, "micro_batch_size": 2}
    whole, sharded = ColocatedTeacher(copy.deepcopy(model), **options), Zero3ShardedTeacher(model, **options)
    count = sum(parameter.numel() for parameter in whole.model.get_decoder().parameters())
    held = sum(parameter.ds_tensor.numel() for parameter in model.get_decoder().parameters())
    assert 0.45 * count < held < 0.55 * count, (held, count)
    prompts = [[5 + i, 6, 7 + i] for i in range(5)]
    completions = [[20 + i] * (i + 1) for i in range(5)]
    for whose in (ROWS, {0: [], 1: [2, 3, 4]}):
        rows = whose[distributed.rank()]
        mine, ours = [prompts[row] for row in rows], [completions[row] for row in rows]
        found, expected = (teacher.score(mine, ours, temperature=0.7, top_k=4) for teacher in (sharded, whole))
        for name, value in vars(expected).items():
            torch.testing.assert_close(getattr(found, name), value, atol=1e-5, rtol=1e-5)
        for temperature in (0.0, 1.0):
            sampling = Sampling(8, temperature)
            assert sharded.generate(mine, sampling, seeds=rows) == whole.generate(mine, sampling, seeds=rows)
    available = [
        parameter.ds_status.name for parameter in model.get_decoder().parameters() if len(parameter.ds_shape) == 2
    ]
    assert set(available) == {"NOT_AVAILABLE"}, available  # nothing stays gathered
    assert sharded.fingerprint == whole.fingerprint
    assert sharded.tokens_scored == whole.tokens_scored
    print(f"rank {distributed.rank()} agrees", flush=True)


if __name__ == "__main__":
    main()
