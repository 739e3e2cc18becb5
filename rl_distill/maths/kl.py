"""KL(policy || ref): estimators on sampled tokens, exact and top-k values.

Everywhere the policy is the first argument and the direction is KL(policy || ref), the "reverse" KL when ref is a
teacher: large where the policy puts probability that the reference does not. Tokens were sampled from the policy.
Knows nothing of models or configs.

Shapes: B completions, T completion tokens, V vocabulary, K ids that a teacher reports. Functions accept any leading
dimensions.
"""

import torch
from torch import Tensor


def kl_k1(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    """log policy - log ref, of the sampled token: unbiased, high variance, negative on about half of the tokens.

    The one for the REWARD, and the only one there. As a loss its expected gradient is zero.
    Schulman 2020, "Approximating KL Divergence" (joschu.net/blog/kl-approx.html), as are k2 and k3.
    """
    return logprobs_BT - ref_logprobs_BT


def kl_k2(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    """(log policy - log ref)^2 / 2: biased, never negative. As a LOSS its gradient is the KL's in expectation; as a
    reward it has the gradient of another function.
    """
    return 0.5 * (logprobs_BT - ref_logprobs_BT).square()


def kl_k3(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    """ref/policy - 1 - log(ref/policy): unbiased, never negative, unbounded where the ref likes a token much better.

    As a loss its gradient is that of the FORWARD KL(ref || policy); as a reward, of another function.
    """
    log_ratio_BT = ref_logprobs_BT - logprobs_BT
    return torch.expm1(log_ratio_BT) - log_ratio_BT


def exact_kl(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """sum_v p_v * (log p_v - log q_v) per token, p = softmax(logits), q = softmax(ref_logits), in at least float32.

    Both must have the same size V; a padded vocabulary is the caller's to slice. Holds several tensors of the logits'
    size: `rl_distill.maths.logprobs.token_statistics` is the same from hidden states in bounded memory.
    """
    assert logits.shape == ref_logits.shape, (logits.shape, ref_logits.shape)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    logp = logits.log_softmax(dim=-1, dtype=dtype)
    logq = ref_logits.log_softmax(dim=-1, dtype=dtype)
    p = logp.exp()
    return (p * (logp - logq).masked_fill(p == 0, 0.0)).sum(dim=-1)


def top_k_kl(logprobs_BTK: Tensor, teacher_logprobs_BTK: Tensor) -> Tensor:
    """KL(policy || teacher) per token over K + 1 outcomes: the teacher's top K ids, and "any other" as one bucket.

        sum_k p_k * (log p_k - log q_k)  +  p_rest * (log p_rest - log q_rest),    p_rest = 1 - sum_k p_k

    Both arguments hold the log-probabilities of the SAME ids, those the teacher reported. Never above the exact KL
    (merging outcomes loses information) and equal to it when the rest is empty or proportional. Without the bucket a
    policy could leave the K ids for free.
    """
    assert logprobs_BTK.shape == teacher_logprobs_BTK.shape, (logprobs_BTK.shape, teacher_logprobs_BTK.shape)
    logp = torch.cat([logprobs_BTK, log_rest(logprobs_BTK)], dim=-1)
    logq = torch.cat([teacher_logprobs_BTK, log_rest(teacher_logprobs_BTK)], dim=-1)
    return (logp.exp() * (logp - logq)).sum(dim=-1)


def log_rest(logprobs_BTK: Tensor) -> Tensor:
    """log(1 - sum_k exp(logprobs)), with a last dimension of 1. A rest below rounding counts as the dtype's eps."""
    log_total = torch.logsumexp(logprobs_BTK, dim=-1, keepdim=True)
    return torch.log(-torch.expm1(log_total.clamp(max=-torch.finfo(logprobs_BTK.dtype).eps)))
