"""The e-process by brute force and by simulation; the router's shares and its roll-back."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from rl_distill.serving.ab.routing import Router, place_of
from rl_distill.serving.ab.sequential import GAPS, SequentialTest, block_log_factors, log_evidence
from rl_distill.serving.settings import VariantSpec

ALARM = math.log(20)


@pytest.mark.parametrize("sizes", [(1, 1), (3, 1), (1, 4)])
@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5, 0.97])
def test_no_rate_common_to_both_streams_gives_a_factor_of_expectation_above_one(sizes, rate):
    size_a, size_b = sizes
    for common in np.linspace(0, 1, 21):
        expectation = np.zeros(len(GAPS))
        for outcome in itertools.product([0, 1], repeat=size_a + size_b):
            probability = common ** sum(outcome) * (1 - common) ** (len(outcome) - sum(outcome))
            factors = block_log_factors(sum(outcome[:size_a]), sum(outcome[size_a:]), rate, size_a, size_b)
            expectation += probability * np.exp(factors)
        assert (expectation <= 1 + 1e-12).all()


def test_a_factor_is_the_likelihood_ratio():
    factors = block_log_factors(1, 0, 0.5, 1, 1)
    assert np.exp(factors[2]) == pytest.approx(0.55 * 0.55 / 0.25)  # gap 0.1: rates 0.55 and 0.45 against 0.5
    assert np.exp(block_log_factors(0, 1, 0.5, 1, 1)[2]) == pytest.approx(0.45 * 0.45 / 0.25)


def test_one_outcome_at_a_time_gives_what_all_at_once_gives():
    draws = np.random.default_rng(0)
    control, variant = draws.random((60, 3)) < 0.7, draws.random(60) < 0.5
    test = SequentialTest(size_control=3)
    for success in variant:
        test.observe(True, bool(success))
    for success in control.ravel():
        test.observe(False, bool(success))
    assert test.log_evidence == pytest.approx(log_evidence(control.sum(1), variant.astype(int), 3, 1)[-1])


@pytest.mark.parametrize(("rate", "sizes"), [(0.5, (1, 1)), (0.7, (1, 1)), (0.95, (1, 1)), (0.7, (9, 1))])
def test_equal_models_alarm_in_at_most_five_percent_of_200_simulations(rate, sizes):
    draws = np.random.default_rng(1)
    control, variant = (draws.binomial(size, rate, (200, 4000)) for size in sizes)
    alarms = (log_evidence(control, variant, *sizes) >= ALARM).any(-1)
    assert alarms.mean() <= 0.05


def test_a_gap_of_ten_points_is_found_within_2000_outcomes_per_stream():
    draws = np.random.default_rng(2)
    found = log_evidence(draws.binomial(1, 0.7, (200, 2000)), draws.binomial(1, 0.6, (200, 2000))) >= ALARM
    first = np.where(found.any(-1), found.argmax(-1), 2000)
    assert found.any(-1).mean() >= 0.95
    assert np.median(first) <= 700


def test_a_better_variant_raises_no_alarm():
    draws = np.random.default_rng(3)
    found = log_evidence(draws.binomial(1, 0.6, (200, 2000)), draws.binomial(1, 0.7, (200, 2000))) >= ALARM
    assert found.any(-1).mean() <= 0.05


SPECS = [VariantSpec("control", "a", 0.6), VariantSpec("one", "b", 0.3), VariantSpec("two", "c", 0.1)]


def test_users_are_split_by_the_shares_and_stay():
    router = Router(SPECS)
    chosen = {f"user {i}": router.choose(f"user {i}") for i in range(20_000)}
    counts = Counter(chosen.values())
    for spec in SPECS:
        assert counts[spec.name] / 20_000 == pytest.approx(spec.share, abs=0.015)  # four standard errors
    assert all(router.choose(user) == name for user, name in chosen.items())
    assert 0 <= place_of("\ud800") < 1
    assert {router.choose(None) for _ in range(200)} == {"control", "one", "two"}


def test_a_worse_variant_is_rolled_back_and_only_its_users_move():
    router, draws = Router(SPECS), np.random.default_rng(4)
    before = {f"user {i}": router.choose(f"user {i}") for i in range(20_000)}
    rolled_back = []
    for user, name in before.items():
        success = bool(draws.random() < {"control": 0.7, "one": 0.7, "two": 0.4}[name])
        rolled_back += [gone for gone in [router.observe(name, user, success)] if gone]
    assert rolled_back == ["two"]
    after = {user: router.choose(user) for user in before}
    assert all(after[user] == ("control" if name == "two" else name) for user, name in before.items())
    assert [router.share(name) for name in ("control", "one", "two")] == pytest.approx([0.7, 0.3, 0])


def test_a_user_counts_once():
    router = Router(SPECS[:2])
    for _ in range(1000):
        router.observe("control", "ann", True)
        router.observe("one", "bob", False)
    assert router.tests["one"].log_evidence < 2
    assert not router.rolled_back
