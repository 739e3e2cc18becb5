"""The audit: correlation and rates by hand, and a warning when the proxy rises while the check falls."""

import math
import random
import warnings

import pytest

from reward_models.audit import Audit, AuditConfig, high_but_wrong, spearman
from reward_models.base import RewardSpec

SPECS = [RewardSpec("bleu", 0.7), RewardSpec("math_answer", 0.3), RewardSpec("think_format", 0.1)]


def test_spearman_by_hand():
    assert spearman((1.0, 2.0, 3.0), (10.0, 20.0, 90.0)) == pytest.approx(1.0)
    assert spearman((1.0, 2.0, 3.0), (3.0, 2.0, 1.0)) == pytest.approx(-1.0)
    # ranks 0 1 2 3 and (two ties) 0.5 0.5 2.5 2.5: covariance 1, deviations sqrt(1.25) and 1
    assert spearman((1.0, 2.0, 3.0, 4.0), (0.0, 0.0, 1.0, 1.0)) == pytest.approx(1 / math.sqrt(1.25))
    assert math.isnan(spearman((1.0, 1.0), (0.0, 1.0)))


def test_high_but_wrong_by_hand():
    pairs = [(0.9, 1.0), (0.8, 0.0), (0.2, 0.0), (0.1, 1.0)]
    assert high_but_wrong(pairs, 0.5) == 0.5
    assert high_but_wrong(pairs, 0.25) == 0.0
    assert high_but_wrong([(0.5, 0.0)] * 4, 0.25) == 1.0  # ties count as high


def test_proxies_and_check_are_recognised_and_may_be_named():
    audit = Audit(SPECS, AuditConfig())
    assert (audit.proxies, audit.check) == (["bleu"], "math_answer")
    audit = Audit(SPECS, AuditConfig(proxies=("think_format",), check="math_answer"))
    assert audit.proxies == ["think_format"]
    with pytest.raises(ValueError, match="names 'blue', but the parts are bleu, math_answer, think_format"):
        Audit(SPECS, AuditConfig(proxies=("blue",)))


def test_metrics_leave_out_unscored_items_and_undefined_correlations():
    parts = {"bleu": [0.9, 0.1, None, 0.5], "math_answer": [1.0, 0.0, 1.0, None], "think_format": [0.0] * 4}
    metrics = Audit(SPECS, AuditConfig()).look(parts, random.Random(0))
    assert metrics == {"audit/bleu/correlation": 1.0, "audit/bleu/high_but_wrong": 0.0, "audit/bleu/hacking": 0.0}
    constant = {**parts, "math_answer": [1.0] * 4}
    assert "audit/bleu/correlation" not in Audit(SPECS, AuditConfig()).look(constant, random.Random(0))


def run_trend(proxy_slope: float, check_slope: float, num_batches: int = 40) -> tuple[float, list]:
    rng, audit, metrics = random.Random(3), Audit(SPECS, AuditConfig(sample=32)), {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(num_batches):
            share = step / num_batches
            bleu = [0.4 + proxy_slope * share + rng.gauss(0, 0.1) for _ in range(64)]
            check = [float(rng.random() < 0.5 + check_slope * share) for _ in range(64)]
            metrics = audit.look({"bleu": bleu, "math_answer": check}, rng)
    return metrics["audit/bleu/hacking"], caught


def test_a_rising_proxy_with_a_falling_check_is_warned_of():
    hacking, caught = run_trend(proxy_slope=0.3, check_slope=-0.4)
    assert hacking == 1.0
    assert "the reward 'bleu' rose while the check 'math_answer' fell" in str(caught[-1].message)


@pytest.mark.parametrize(("proxy_slope", "check_slope"), [(0.3, 0.4), (0.0, 0.0), (-0.3, -0.4), (0.3, 0.0)])
def test_other_trends_are_not(proxy_slope, check_slope):
    hacking, caught = run_trend(proxy_slope, check_slope)
    assert (hacking, caught) == (0.0, [])


def test_history_survives_a_checkpoint():
    audit, rng = Audit(SPECS, AuditConfig(window=2)), random.Random(0)
    for step in range(3):
        audit.look({"bleu": [0.1 * step, 0.2], "math_answer": [1.0, 0.0]}, rng)
    other = Audit(SPECS, AuditConfig(window=2))
    other.load_state_dict(audit.state_dict())
    assert other.state_dict() == audit.state_dict()
    assert len(other.state_dict()["bleu"]) == 3
