"""How near the student is to its teacher on held-out sequences: perplexity, KL both ways, agreement of the best token.

The KL on the student's own samples alone misleads: it fell by 59 % for a badly pruned model that stayed garbage. Every
number here is over all real completion tokens of fixed sequences, over all processes, the same on each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .. import distributed
from ..maths.batching import length_sorted, token_batch
from ..maths.distillation import forward_kl, reverse_kl
from ..maths.lm_head import slices
from ..teachers import Teacher
from .examples import Example
from .student import at_tokens

CHUNK_TOKENS = 256
NAMES = ("nll", "forward_kl", "reverse_kl", "top1_agreement")


@torch.no_grad()
def heldout_metrics(
    policy: PreTrainedModel,
    teacher: Teacher | None,
    examples: Sequence[Example],
    *,
    pad_token_id: int,
    num_tokens_vocab: int | None = None,
    batch_size: int = 32,
) -> dict[str, float]:
    """Means per token of the examples' completions: `nll` (and `perplexity`), and with a teacher whose distribution is
    known in full `forward_kl` KL(teacher || student), `reverse_kl` and `top1_agreement`, at temperature 1.

    To be called by all processes at once; each takes its share of the examples.
    """
    mine = list(examples[distributed.rank() :: distributed.world_size()])
    sums = torch.zeros(len(NAMES) + 1, dtype=torch.float64)
    was_training = policy.training
    policy.eval()
    lengths = [len(example.prompt_ids) + len(example.completion_ids) for example in mine]
    for rows in distributed.in_step(list(length_sorted(lengths, batch_size))):
        sums += _sums(policy, teacher, [mine[row] for row in rows], pad_token_id, num_tokens_vocab)
    policy.train(was_training)
    *totals, count = distributed.sum_over_processes(sums).tolist()
    means = {name: total / count if count else math.nan for name, total in zip(NAMES, totals, strict=True)}
    if teacher is None or not isinstance(teacher.lm_head_weight_VE, Tensor):  # none, behind a server, or an ensemble
        means = {"nll": means["nll"]}
    return means | {"perplexity": math.exp(min(means["nll"], 700.0))}


def _sums(
    policy: PreTrainedModel,
    teacher: Teacher | None,
    examples: Sequence[Example],
    pad_token_id: int,
    num_tokens_vocab: int | None,
) -> Tensor:
    prompts, completions = [e.prompt_ids for e in examples], [e.completion_ids for e in examples]
    batch = token_batch(prompts, completions, pad_token_id).to(policy.device)
    states = policy.get_decoder()(input_ids=batch.input_ids_BL, use_cache=False).last_hidden_state
    hidden_ND, head = at_tokens(states, batch.state_index_N), policy.get_output_embeddings()
    weights: Any = None if teacher is None else teacher.lm_head_weight_VE
    exact = isinstance(weights, Tensor)
    tasks = [example.task for example in examples]
    hidden_NE = teacher.score(prompts, completions, tasks=tasks).hidden_NE if teacher is not None and exact else None
    num_vocab = min(len(head.weight), *([len(weights)] if exact else []), num_tokens_vocab or len(head.weight))
    sums = torch.zeros(len(NAMES) + 1, dtype=torch.float64)
    for chunk in slices(len(batch.targets_N), CHUNK_TOKENS):
        logits_nV = torch.nn.functional.linear(hidden_ND[chunk], head.weight, head.bias)[:, :num_vocab].float()
        logp_nV = logits_nV.log_softmax(-1)
        parts = [-logp_nV.gather(1, batch.targets_N[chunk, None])[:, 0]]
        if hidden_NE is not None:
            logq_nV = torch.nn.functional.linear(hidden_NE[chunk], weights[:num_vocab]).float().log_softmax(-1)
            agree_n = (logp_nV.argmax(-1) == logq_nV.argmax(-1)).float()
            parts += [forward_kl(logp_nV, logq_nV), reverse_kl(logp_nV, logq_nV), agree_n]
        for index, part in enumerate(parts):
            sums[index] += part.double().sum().cpu()
    sums[-1] = len(batch.targets_N)
    return sums
