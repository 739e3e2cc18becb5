"""KL estimators and their expectations, exact and top-k KL, and the coefficients, against numbers written by hand."""

import itertools
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_distill.maths.kl import exact_kl, kl_k1, kl_k2, kl_k3, log_rest, top_k_kl
from rl_distill.ppo.coefficients import (
    AdaptiveKLController,
    AnnealedCoefficient,
    EvidenceCoefficient,
    FixedCoefficient,
    SuccessCount,
)

P = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
Q = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64)
KL_PQ = 0.25 * math.log(2)


def logits(seed: int, num_vocab: int) -> torch.Tensor:
    return 2 * torch.randn(num_vocab, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_estimators_by_hand():
    new, ref = torch.tensor([0.5, 0.25]).log(), torch.tensor([0.25, 0.5]).log()
    log_2 = math.log(2)
    assert kl_k1(new, ref).tolist() == pytest.approx([log_2, -log_2])
    assert kl_k2(new, ref).tolist() == pytest.approx([log_2**2 / 2, log_2**2 / 2])
    assert kl_k3(new, ref).tolist() == pytest.approx([-0.5 + log_2, 1 - log_2])


def test_exact_kl_by_hand_is_directed_from_policy_to_ref():
    assert exact_kl(P.log(), Q.log()).item() == pytest.approx(KL_PQ)
    p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    assert exact_kl(p, q).item() == pytest.approx(0.5 * math.log(4 / 3))
    assert exact_kl(q, p).item() == pytest.approx(0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2))


def test_exact_kl_of_an_impossible_token():
    certain, even = torch.tensor([0.0, -torch.inf], requires_grad=True), torch.tensor([0.0, 0.0])
    kl = exact_kl(certain, even)
    kl.backward()
    assert kl.item() == pytest.approx(math.log(2))
    assert certain.grad.isfinite().all()
    assert exact_kl(even, torch.tensor([0.0, -torch.inf])) == torch.inf


@given(st.integers(0, 10_000), st.integers(2, 8))
@settings(deadline=None, max_examples=50)
def test_k1_and_k3_have_the_exact_kl_as_expectation(seed, num_vocab):
    x, y = logits(seed, num_vocab), logits(seed + 1, num_vocab)
    logp, logq = x.log_softmax(0), y.log_softmax(0)
    for estimator in (kl_k1, kl_k3):
        torch.testing.assert_close((logp.exp() * estimator(logp, logq)).sum(), exact_kl(x, y))
    assert (kl_k3(logp, logq) >= 0).all()
    assert exact_kl(x, y) >= 0


@given(st.integers(0, 10_000), st.integers(2, 8))
@settings(deadline=None, max_examples=50)
def test_gradients_in_expectation_are_what_the_docstrings_say(seed, num_vocab):
    x, y = logits(seed, num_vocab).requires_grad_(), logits(seed + 1, num_vocab)
    logp, logq = x.log_softmax(0), y.log_softmax(0)
    p = logp.exp().detach()

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, x, retain_graph=True)[0]

    reverse, forward = gradient(exact_kl(x, y)), gradient(exact_kl(y, x))
    torch.testing.assert_close(gradient((p * kl_k1(logp, logq)).sum()), torch.zeros_like(x))
    torch.testing.assert_close(gradient((p * kl_k2(logp, logq)).sum()), reverse)
    torch.testing.assert_close(gradient((p * kl_k3(logp, logq)).sum()), forward)
    torch.testing.assert_close(gradient((p * kl_k1(logp, logq).detach() * logp).sum()), reverse)  # k1 in the reward


def test_every_kl_of_a_policy_with_itself_is_zero():
    logp = logits(0, 9).log_softmax(0)
    for kl in (kl_k1, kl_k2, kl_k3, exact_kl):
        assert kl(logp, logp).abs().max() == 0
    assert top_k_kl(logp[:4], logp[:4]) == 0


def test_top_k_kl_by_hand():
    # ids 2 | 0, 1: 0.25 * log(0.25 / 0.5) + 0.75 * log(0.75 / 0.5)
    value = top_k_kl(P[[2]].log(), Q[[2]].log())
    assert value.item() == pytest.approx(-0.25 * math.log(2) + 0.75 * math.log(1.5))
    assert log_rest(P[[2]].log()).exp().tolist() == pytest.approx([0.75])


@given(st.integers(0, 10_000), st.integers(2, 12), st.data())
@settings(deadline=None, max_examples=50)
def test_top_k_kl_grows_with_k_to_the_exact_kl(seed, num_vocab, data):
    x, y = logits(seed, num_vocab), logits(seed + 1, num_vocab)
    logp, logq = x.log_softmax(0), y.log_softmax(0)
    ids = logq.argsort(descending=True)
    values = [top_k_kl(logp[ids[:k]], logq[ids[:k]]).item() for k in range(1, num_vocab + 1)]
    assert all(low <= high + 1e-9 for low, high in itertools.pairwise(values))
    assert values[-1] == pytest.approx(exact_kl(x, y).item(), abs=1e-9)


def test_top_k_kl_of_everything_has_a_finite_gradient():
    x = torch.randn(3, 5, requires_grad=True)
    top_k_kl(x.log_softmax(-1), torch.randn(3, 5).log_softmax(-1)).sum().backward()
    assert x.grad.isfinite().all()


def test_a_policy_that_leaves_the_top_k_pays_for_it():
    teacher = torch.tensor([0.6, 0.39]).log()
    assert top_k_kl(torch.tensor([0.01, 0.01]).log(), teacher) > 4


def test_fixed_coefficient():
    fixed = FixedCoefficient(0.3)
    fixed.observe(tasks=["math"], successes=[1.0], kl=9.0)
    assert fixed.coefficients(["math", "code"], 0.9) == [0.3, 0.3]
    assert fixed.metrics() == {"anchor/coefficient": 0.3}


def test_annealed_coefficient_by_hand():
    annealed = AnnealedCoefficient(1.0, 0.2, begin=0.25, finish=0.75)
    at = {progress: annealed.coefficients(["math"], progress)[0] for progress in (0.0, 0.25, 0.5, 0.75, 1.0)}
    assert at == pytest.approx({0.0: 1.0, 0.25: 1.0, 0.5: 0.6, 0.75: 0.2, 1.0: 0.2})
    with pytest.raises(ValueError, match="begin < finish"):
        AnnealedCoefficient(1.0, 0.0, begin=0.5, finish=0.5)


def test_adaptive_controller_by_hand():
    controller = AdaptiveKLController(initial=0.1, target=2.0, horizon=100)
    controller.observe(tasks=["math"] * 10, successes=[None] * 10, kl=4.0)  # error 1 is clipped to 0.2
    assert controller.coefficients(["math"], 0.0) == pytest.approx([0.102])
    controller.observe(tasks=["math"] * 10, successes=[None] * 10, kl=1.9)  # error -0.05
    assert controller.coefficients(["math"], 0.0) == pytest.approx([0.102 * 0.995])


def test_adaptive_controller_stays_positive_and_refuses_nan():
    controller = AdaptiveKLController(initial=0.1, target=2.0, horizon=1)
    controller.observe(tasks=["math"] * 1000, successes=[None] * 1000, kl=0.0)
    assert controller.coefficients(["math"], 0.0) == pytest.approx([0.08])
    with pytest.raises(ValueError, match="nan"):
        controller.observe(tasks=["math"], successes=[None], kl=math.nan)


def test_adaptive_controller_drives_a_responsive_kl_to_its_target():
    controller = AdaptiveKLController(initial=0.01, target=0.5, horizon=100)
    for _ in range(500):
        coefficient = controller.coefficients(["math"], 0.0)[0]
        controller.observe(tasks=["math"] * 50, successes=[None] * 50, kl=0.1 / coefficient)
    assert 0.1 / coefficient == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FixedCoefficient(0.3),
        lambda: AnnealedCoefficient(1.0, 0.1),
        lambda: AdaptiveKLController(0.1, 0.5, 100),
        lambda: EvidenceCoefficient({"math": SuccessCount(9, 10), "code": SuccessCount(4, 10)}),
    ],
    ids=["fixed", "annealed", "adaptive", "evidence"],
)
def test_a_coefficient_resumes_exactly_from_its_json_state(make):
    def step(coefficient, i):
        tasks = ["math", "code", "math"]
        coefficient.observe(tasks=tasks, successes=[i % 2, None if i % 3 else 1.0, 0.3], kl=0.1 * i)
        return coefficient.coefficients(tasks, i / 10)

    whole, first, resumed = make(), make(), make()
    expected = [step(whole, i) for i in range(10)]
    got = [step(first, i) for i in range(5)]
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    got += [step(resumed, i) for i in range(5, 10)]
    assert got == expected
    assert resumed.metrics() == whole.metrics()
