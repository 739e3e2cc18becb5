"""Clipped losses: branches by hand, gradients where they must be zero, and sums that do not depend on the split."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_distill.maths.losses import anchor_loss, entropy_bonus, policy_loss, sampler_weights, value_loss

RATIOS = torch.tensor([[1.5, 0.5, 1.5, 0.5, 4.0]])
ADVANTAGES = torch.tensor([[1.0, 1.0, -1.0, -1.0, -1.0]])


def clipped(logprobs, advantages=ADVANTAGES, mask=None, **options):
    mask = torch.ones_like(logprobs) if mask is None else mask
    options = {"clip_low": 0.2, "clip_high": 0.2, "count": mask.sum()} | options
    return policy_loss(logprobs, torch.zeros_like(logprobs), advantages, mask, **options)


def test_policy_loss_by_hand_in_every_branch():
    loss, stats = clipped(RATIOS.log())
    assert loss.item() == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8 - 4.0) / 5)
    assert stats.clip_low_fraction.item() == pytest.approx(1 / 5)
    assert stats.clip_high_fraction.item() == pytest.approx(1 / 5)
    assert stats.clip_fraction.item() == pytest.approx(2 / 5)
    assert stats.dual_clip_fraction.item() == 0
    assert stats.ratio.item() == pytest.approx(8 / 5)
    assert stats.approx_kl.item() == pytest.approx((8 - 5 - math.log(1.5 * 0.5 * 1.5 * 0.5 * 4)) / 5)


def test_dual_clip_bounds_the_loss_of_a_negative_advantage():
    loss, stats = clipped(RATIOS.log(), dual_clip=3.0)
    assert loss.item() == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8 - 3.0) / 5)
    assert stats.dual_clip_fraction.item() == pytest.approx(1 / 5)
    assert stats.clip_fraction.item() == pytest.approx(3 / 5)


def test_policy_gradient_is_zero_exactly_where_a_clipped_branch_counts():
    logprobs = RATIOS.log().requires_grad_()
    clipped(logprobs, dual_clip=3.0)[0].backward()
    assert logprobs.grad[0].tolist() == pytest.approx([0, -0.5 / 5, 1.5 / 5, 0, 0])


def test_clip_high_may_differ_from_clip_low():
    loss, stats = clipped(RATIOS.log(), torch.tensor([[1.0, 1.0, -1.0, -2.0, -1.0]]), clip_high=1.0)
    assert loss.item() == pytest.approx(-(1.5 + 0.5 - 1.5 - 1.6 - 4.0) / 5)
    assert stats.clip_high_fraction.item() == 0


def test_at_the_old_policy_the_gradient_is_minus_the_advantage():
    logprobs = torch.zeros(1, 5, requires_grad=True)
    loss, stats = clipped(logprobs, count=1)
    loss.backward()
    assert logprobs.grad.tolist() == (-ADVANTAGES).tolist()
    assert (stats.approx_kl, stats.clip_fraction) == (0, 0)


def test_policy_loss_ignores_what_is_outside_the_mask():
    logprobs = torch.tensor([[math.log(1.5), math.nan]], requires_grad=True)
    advantages, mask = torch.tensor([[1.0, math.nan]]), torch.tensor([[True, False]])
    loss, stats = clipped(logprobs, advantages, mask)
    loss.backward()
    assert loss.item() == pytest.approx(-1.2)
    assert logprobs.grad.isfinite().all()
    assert stats.ratio.item() == pytest.approx(1.5)


def test_an_absurd_ratio_stays_finite():
    loss, _ = clipped(torch.tensor([[200.0, 200.0, -200.0]]), torch.tensor([[1.0, 0.0, -1.0]]))
    assert loss.isfinite()


def test_value_loss_by_hand():
    values, old, returns = torch.tensor([[1.0, 3.0, 3.0]]), torch.zeros(1, 3), torch.tensor([[2.0, 1.0, 1.0]])
    loss, stats = value_loss(values, old, returns, torch.ones(1, 3), clip=0.5, count=3)
    assert loss.item() == pytest.approx(
        0.5 * (2.25 + 4 + 4) / 3
    )  # free errors 1, 4, 4 and clipped ones 2.25, 0.25, 0.25
    assert stats.clip_fraction.item() == pytest.approx(1 / 3)
    assert stats.error.item() == pytest.approx(5 / 3)
    loss, stats = value_loss(values, old, returns, torch.ones(1, 3), clip=None, count=3)
    assert loss.item() == pytest.approx(0.5 * (1 + 4 + 4) / 3)
    assert stats.clip_fraction.item() == 0


def test_value_gradient_is_the_error_and_zero_where_clipped():
    values = torch.tensor([[1.0, 3.0]], requires_grad=True)
    value_loss(values, torch.zeros(1, 2), torch.tensor([[2.0, 1.0]]), torch.ones(1, 2), clip=0.5, count=1)[0].backward()
    assert values.grad.tolist() == [[0.0, 2.0]]


def test_value_loss_ignores_what_is_outside_the_mask():
    values = torch.tensor([[1.0, math.nan]], requires_grad=True)
    old, returns = torch.tensor([[1.0, math.nan]]), torch.tensor([[0.0, math.nan]])
    loss, _ = value_loss(values, old, returns, torch.tensor([[1, 0]]), clip=0.5, count=1)
    assert loss.item() == 0.5


def test_entropy_bonus_and_anchor_loss_by_hand():
    assert entropy_bonus(torch.tensor([1.0, 2.0, 3.0]), count=3) == 2
    assert anchor_loss(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0.5, 0.5, 2.0]), count=3) == 2


def test_sampler_weights_are_capped_from_above_only():
    logprobs = torch.tensor([[0.5, 4.0, 0.25, 1.0]]).log()
    weights = sampler_weights(logprobs, torch.zeros(1, 4), torch.tensor([[1, 1, 1, 0]]), cap=2.0)
    assert weights[0].tolist() == pytest.approx([0.5, 2.0, 0.25, 0.0])


@given(st.integers(0, 2**31), st.lists(st.integers(1, 3), min_size=1, max_size=4), st.sampled_from([None, 2.0]))
@settings(deadline=None, max_examples=50)
def test_micro_batches_with_a_global_count_add_up_to_the_whole(seed, sizes, dual_clip):
    generator = torch.Generator().manual_seed(seed)
    new, old, advantages, returns = torch.randn(4, sum(sizes), 5, generator=generator, dtype=torch.float64)
    mask = torch.rand(sum(sizes), 5, generator=generator) < 0.6
    count = mask.sum().clamp(min=1)

    def losses(rows: slice) -> torch.Tensor:
        policy, policy_stats = policy_loss(
            new[rows], old[rows], advantages[rows], mask[rows],
            clip_low=0.2, clip_high=0.3, dual_clip=dual_clip, count=count,
        )  # fmt: skip
        value, value_stats = value_loss(new[rows], old[rows], returns[rows], mask[rows], clip=0.2, count=count)
        stats = [*vars(policy_stats).values(), *vars(value_stats).values()]
        return torch.stack([policy, value, *stats])

    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    parts = [losses(slice(start, start + size)) for start, size in zip(starts, sizes, strict=True)]
    torch.testing.assert_close(torch.stack(parts).sum(dim=0), losses(slice(None)))


@given(st.integers(0, 2**31), st.integers(0, 4))
@settings(deadline=None, max_examples=30)
def test_padding_changes_nothing(seed, num_padding):
    x = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    padded = torch.nn.functional.pad(x, (0, num_padding), value=1e3)
    mask = torch.ones(3, 4)
    padded_mask = torch.nn.functional.pad(mask, (0, num_padding))
    options = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": 3.0, "count": 12}
    torch.testing.assert_close(
        policy_loss(*padded[:3], padded_mask, **options)[0], policy_loss(*x[:3], mask, **options)[0]
    )
    options = {"clip": 0.2, "count": 12}
    torch.testing.assert_close(
        value_loss(*padded[2:], padded_mask, **options)[0], value_loss(*x[2:], mask, **options)[0]
    )
