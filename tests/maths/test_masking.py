"""Masks and masked statistics, against numbers written by hand and against a split over processes."""

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rl_distill.maths.advantages import explained_variance
from rl_distill.maths.masking import (
    center,
    masked_mean,
    masked_sum,
    moments,
    standardize,
)


def in_processes(function: Callable[..., Tensor], *shards: tuple[Tensor, ...]) -> list[Tensor]:
    """`function(*shard, reduce)` in one thread per shard; `reduce` sums over all of them, as an all-reduce would."""
    barrier, posted, results = threading.Barrier(len(shards)), [None] * len(shards), [None] * len(shards)

    def work(rank: int) -> None:
        def reduce(x: Tensor) -> Tensor:
            posted[rank] = x
            barrier.wait(timeout=10)
            total = torch.stack(posted).sum(dim=0)
            barrier.wait(timeout=10)
            return total

        results[rank] = function(*shards[rank], reduce)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(shards))]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return results


def test_masked_sum_and_mean_ignore_nan_outside_the_mask():
    x = torch.tensor([[1.0, 2.0, torch.nan], [6.0, torch.inf, torch.nan]], requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert masked_sum(x, mask) == 9
    assert masked_mean(x, mask) == 3
    assert masked_mean(x, mask, count=18) == 0.5
    masked_mean(x, mask).backward()
    assert x.grad.flatten().tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3, 0, 0])


def test_masked_mean_of_nothing_is_zero():
    assert masked_mean(torch.ones(2, 2), torch.zeros(2, 2)) == 0


def test_moments_divide_by_the_count():
    mean, variance, count = moments(torch.tensor([[1.0, 3.0, 99.0]]), torch.tensor([[1, 1, 0]]))
    assert (mean, variance, count) == (2, 1, 2)


def test_center_and_standardize_by_hand():
    x, mask = torch.tensor([[1.0, 5.0, 99.0]]), torch.tensor([[1, 1, 0]])
    assert center(x, mask).tolist() == [[-2, 2, 0]]
    assert standardize(x, mask).tolist() == [[-1, 1, 0]]


def test_small_differences_are_not_amplified_beyond_the_smallest_scale():
    x, mask = torch.tensor([[0.001, 0.003, 99.0]], dtype=torch.float64), torch.tensor([[1, 1, 0]])
    torch.testing.assert_close(standardize(x, mask), torch.tensor([[-0.1, 0.1, 0.0]]).double())  # 0.001 / 0.01
    torch.testing.assert_close(standardize(20 * x, mask), torch.tensor([[-1.0, 1.0, 0.0]]).double())  # 0.02 / 0.02
    torch.testing.assert_close(standardize(x, mask, smallest_scale=0.0005), torch.tensor([[-1.0, 1.0, 0.0]]).double())


@pytest.mark.parametrize("value", [0.1, 0.7, 1000.1])
def test_a_constant_standardizes_to_zeros_not_to_amplified_rounding(value):
    x = torch.full((301, 7), value)
    assert standardize(x, torch.ones(301, 7)).abs().max() < 1e-6


def test_center_keeps_the_scale_and_standardize_does_not():
    x, mask = torch.tensor([[10.0, 30.0]]), torch.ones(1, 2)
    assert center(10 * x, mask).tolist() == [[-100, 100]]
    assert standardize(10 * x, mask).tolist() == [[-1, 1]]


@pytest.mark.parametrize("function", [center, standardize])
def test_statistics_are_global_over_processes(function):
    torch.manual_seed(0)
    x, mask = 3 + 2 * torch.randn(6, 5), torch.rand(6, 5) < 0.7
    x[4:] += 10  # per-process statistics would hide this
    parts = in_processes(function, (x[:4], mask[:4]), (x[4:], mask[4:]))
    torch.testing.assert_close(torch.cat(parts), function(x, mask))


def test_explained_variance_is_global_over_processes():
    torch.manual_seed(0)
    returns, values, mask = torch.randn(4, 5), torch.randn(4, 5), torch.rand(4, 5) < 0.8
    returns[2:] += 3
    whole = explained_variance(returns, values, mask)
    parts = in_processes(explained_variance, *((returns[s], values[s], mask[s]) for s in (slice(0, 2), slice(2, 4))))
    torch.testing.assert_close(parts, [whole, whole])


def test_a_process_without_real_tokens_takes_part():
    x, mask = torch.tensor([[1.0, 5.0], [7.0, 7.0]]), torch.tensor([[1, 1], [0, 0]])
    parts = in_processes(standardize, (x[:1], mask[:1]), (x[1:], mask[1:]))
    assert torch.cat(parts).tolist() == [[-1, 1], [0, 0]]


def test_bfloat16_statistics_are_formed_in_more_bits():
    x = torch.ones(1, 1000, dtype=torch.bfloat16)  # a bfloat16 running sum stops at 256
    assert moments(x, torch.ones(1, 1000))[0] == 1
    assert standardize(x, torch.ones(1, 1000)).dtype == torch.bfloat16
