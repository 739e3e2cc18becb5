"""Masks over completions, and the statistics that must ignore what the mask leaves out.

Assumes right-padded completions; index t of every *_BT tensor is about completion token t (its log-probability, the
value just before it, the reward that arrives after it) and the mask is true through EOS inclusive.
Knows nothing of models, configs or process groups: a `reduce` function that sums over processes is handed in.

Shapes: B completions, T completion tokens.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]
"""Sums a small tensor over all processes and returns the sum; None wherever it is accepted means one process."""


def masked_sum(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum of `x_BT` where the mask is true. NaN or infinity outside the mask does not reach the result."""
    assert x_BT.shape == mask_BT.shape, (x_BT.shape, mask_BT.shape)
    return torch.where(mask_BT.bool(), x_BT, 0.0).sum()


def masked_mean(x_BT: Tensor, mask_BT: Tensor, count: Tensor | float | None = None) -> Tensor:
    """Masked sum divided by `count`, or by the number of true mask entries when `count` is None.

    Pass the global token count of an optimizer step as `count` and the results of its micro-batches and processes ADD
    UP to the mean over all tokens, however the batch was split. Nothing selected and no count gives 0.
    """
    if count is None:
        count = mask_BT.sum().clamp(min=1)
    return masked_sum(x_BT, mask_BT) / count


def moments(x_BT: Tensor, mask_BT: Tensor, reduce: Reduce | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, variance, count) of the masked entries over all processes, in float64.

    The variance divides by the count, not by count - 1, and is summed around the global mean (two reductions), so it
    does not cancel when the mean is large. Nothing selected anywhere gives mean and variance 0.
    """
    assert x_BT.shape == mask_BT.shape, (x_BT.shape, mask_BT.shape)
    x = x_BT.detach()[mask_BT.bool()].double()
    count = torch.full_like(x.sum(), x.numel())
    total, count = _all_sum(torch.stack([x.sum(), count]), reduce).unbind()
    mean = total / count.clamp(min=1)
    variance = _all_sum((x - mean).square().sum()[None], reduce)[0] / count.clamp(min=1)
    return mean, variance, count


def center(x_BT: Tensor, mask_BT: Tensor, reduce: Reduce | None = None) -> Tensor:
    """`x_BT` minus its global masked mean; 0 outside the mask."""
    mean, _, _ = moments(x_BT, mask_BT, reduce)
    return torch.where(mask_BT.bool(), x_BT - mean, 0.0).to(x_BT.dtype)


SMALLEST_SCALE = 0.01
"""Below this standard deviation `standardize` amplifies no further: 1 % of a reward of one unit."""


def standardize(
    x_BT: Tensor, mask_BT: Tensor, reduce: Reduce | None = None, smallest_scale: float = SMALLEST_SCALE
) -> Tensor:
    """`x_BT` shifted to global masked mean 0 and divided by its standard deviation; 0 outside the mask.

    The divisor is `smallest_scale` at least, so that differences that are noise beside a reward of one unit stay small:
    with a standard deviation of 0.001 the result has one of 0.1, and a constant input comes out as zeros.
    """
    mean, variance, _ = moments(x_BT, mask_BT, reduce)
    scale = variance.sqrt().clamp(min=smallest_scale)
    return torch.where(mask_BT.bool(), (x_BT.double() - mean) / scale, 0.0).to(x_BT.dtype)


def _all_sum(x: Tensor, reduce: Reduce | None) -> Tensor:
    return x if reduce is None else reduce(x)
