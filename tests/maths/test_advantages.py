"""GAE and its relatives, against numbers written by hand and the definitions spelled out as loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_distill.maths.advantages import (
    anchored_rewards,
    explained_variance,
    gae,
    group_mean_advantages,
    scores_to_rewards,
)

NAN = math.nan


def gae_row(rewards, values, gamma, lam):
    """The definition, A_t = sum_k (gamma * lam)^k * delta_{t+k}, for one row; nothing follows its last token."""
    values = [*values, 0.0]
    deltas = [r + gamma * values[t + 1] - values[t] for t, r in enumerate(rewards)]
    return [sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[t:])) for t in range(len(deltas))]


def test_gae_by_hand():
    # deltas 0.5, 1.5, 2; advantages 2, 1.5 + 0.25 * 2, 0.5 + 0.25 * 2
    rewards, values = torch.tensor([[1.0, 2.0, 3.0]]), torch.ones(1, 3)
    advantages, returns = gae(rewards, values, torch.ones(1, 3), gamma=0.5, lam=0.5)
    assert advantages.tolist() == [[1.0, 2.0, 2.0]]
    assert returns.tolist() == [[2.0, 3.0, 3.0]]


def test_gae_ignores_padding_on_either_side_and_steps_over_a_gap():
    rewards = torch.tensor([[1.0, 2.0, 3.0, NAN], [NAN, 1.0, 2.0, 3.0], [1.0, NAN, 3.0, NAN]])
    values = torch.tensor([[1.0, 1.0, 1.0, NAN], [NAN, 1.0, 1.0, 1.0], [1.0, NAN, 1.0, NAN]])
    mask = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 1, 0]])
    advantages, returns = gae(rewards, values, mask, gamma=0.5, lam=0.5)
    assert advantages.tolist() == [[1, 2, 2, 0], [0, 1, 2, 2], [1, 0, 2, 0]]
    assert returns.tolist() == [[2, 3, 3, 0], [0, 2, 3, 3], [2, 0, 3, 0]]


def test_gae_is_reward_to_go_when_values_are_zero_and_lambda_is_one():
    rewards = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    advantages, returns = gae(rewards, torch.zeros(2, 3), mask, gamma=1.0, lam=1.0)
    assert advantages.tolist() == [[3, 2, 2], [3, 3, 0]]
    assert returns.equal(advantages)


def test_gae_is_the_td_error_when_lambda_is_zero():
    rewards, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.25]])
    advantages, _ = gae(rewards, values, torch.ones(1, 2), gamma=1.0, lam=0.0)
    assert advantages.tolist() == [[-0.25, 0.75]]


def test_returns_stay_at_the_score_when_the_critic_learns_them_over_and_over():
    # one token that earns 1 and is cut: with a value bootstrapped after it the target would be 1 + value, without end
    value = torch.zeros(1, 1)
    for _ in range(100):
        _, value = gae(torch.ones(1, 1), value, torch.ones(1, 1), gamma=1.0, lam=0.95)
    assert value.item() == 1.0


def test_gae_lets_no_gradient_through():
    values = torch.ones(1, 2, requires_grad=True)
    advantages, returns = gae(torch.ones(1, 2), values, torch.ones(1, 2), gamma=1.0, lam=1.0)
    assert not advantages.requires_grad
    assert not returns.requires_grad


@given(st.data(), st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None, max_examples=50)
def test_gae_equals_its_definition_row_by_row(data, gamma, lam):
    lengths = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=4))
    numbers = st.floats(-5, 5, width=32)
    rewards, values = torch.full((len(lengths), 7), NAN).double(), torch.full((len(lengths), 7), NAN).double()
    mask = torch.zeros(len(lengths), 7)
    expected = torch.zeros(len(lengths), 7).double()
    for row, length in enumerate(lengths):
        r, v = (data.draw(st.lists(numbers, min_size=length, max_size=length)) for _ in range(2))
        rewards[row, :length], values[row, :length] = torch.tensor(r), torch.tensor(v)
        mask[row, :length] = 1
        expected[row, :length] = torch.tensor(gae_row(r, v, gamma, lam)).double()
    advantages, returns = gae(rewards, values, mask, gamma=gamma, lam=lam)
    torch.testing.assert_close(advantages, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(returns, expected + values.nan_to_num(), rtol=1e-5, atol=1e-5)


def test_a_score_lands_on_the_last_real_token():
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0]])
    rewards = scores_to_rewards(torch.tensor([1.0, 2.0, 3.0, 4.0]), mask)
    assert rewards.tolist() == [[0, 0, 1, 0], [0, 0, 0, 2], [0, 0, 3, 0], [0, 0, 0, 0]]


def test_an_unscored_completion_does_not_become_a_zero():
    rewards = scores_to_rewards(torch.tensor([NAN]), torch.tensor([[1, 1, 0]]))
    assert rewards[0, 1].isnan()
    assert rewards[0, [0, 2]].tolist() == [0, 0]


def test_a_positive_kl_lowers_the_reward_by_its_completions_coefficient():
    rewards, kl = torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([[2.0, 4.0], [2.0, NAN]])
    anchored = anchored_rewards(rewards, kl, torch.tensor([0.5, 0.1]), torch.tensor([[1, 1], [1, 0]]))
    torch.testing.assert_close(anchored, torch.tensor([[-1.0, -1.0], [-0.2, 0.0]]))


def test_group_advantage_is_score_minus_group_mean_on_every_real_token():
    scores, groups = torch.tensor([1.0, 5.0, 0.0, 7.0]), torch.tensor([40, 3, 40, 3])
    mask = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1]])
    assert group_mean_advantages(scores, groups, mask).tolist() == [[0.5, 0.5], [-1, 0], [-0.5, -0.5], [1, 1]]


def test_group_advantage_scaled_by_the_sample_standard_deviation():
    scores = torch.tensor([1.0, 2.0, 3.0])  # sample standard deviation 1
    advantages = group_mean_advantages(scores, torch.zeros(3).long(), torch.ones(3, 1), scale=True, eps=0.0)
    assert advantages.tolist() == [[-1], [0], [1]]


@pytest.mark.parametrize("scale", [False, True])
def test_unscored_rows_and_lonely_rows_have_no_advantage(scale):
    scores, groups = torch.tensor([1.0, NAN, 3.0, 9.0, NAN]), torch.tensor([0, 0, 0, 1, 2])
    advantages = group_mean_advantages(scores, groups, torch.ones(5, 1), scale=scale, eps=1e-4)
    unit = 1 if not scale else 1 / (math.sqrt(2) + 1e-4)
    assert advantages[:, 0].tolist() == pytest.approx([-unit, 0, unit, 0, 0])


@given(st.lists(st.tuples(st.floats(-10, 10), st.integers(0, 3)), min_size=1, max_size=12))
@settings(deadline=None, max_examples=50)
def test_group_advantages_sum_to_zero_within_each_group(rows):
    scores, groups = torch.tensor([r[0] for r in rows]).double(), torch.tensor([r[1] for r in rows])
    advantages = group_mean_advantages(scores, groups, torch.ones(len(rows), 1))
    for group in groups.unique():
        assert abs(advantages[groups == group].sum()) < 1e-9


def test_explained_variance_by_hand():
    returns, mask = torch.tensor([[0.0, 2.0, 99.0]]), torch.tensor([[1, 1, 0]])
    assert explained_variance(returns, returns, mask) == 1
    assert explained_variance(returns, torch.full((1, 3), 5.0), mask) == 0
    assert explained_variance(returns, torch.tensor([[0.0, 1.0, 7.0]]), mask) == 0.75
    assert explained_variance(returns, torch.tensor([[2.0, 0.0, 7.0]]), mask) == -3
    assert explained_variance(torch.ones(1, 3), returns, mask).isnan()
