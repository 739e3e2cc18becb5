"""Soft-target losses against float64 references written out here, TRL's loss, finite differences and brute force."""

import math

import pytest
import torch

from rl_distill.maths.distillation import (
    distillation_statistics,
    jensen_shannon,
    make_divergence,
    sampled_forward_kl,
    top_k_divergence,
)

KINDS = ["forward_kl", "reverse_kl", "jsd", "tvd"]


def reference(kind: str, p: list[float], q: list[float], beta: float = 0.3) -> float:
    """One token's divergence between the student's p and the teacher's q, in plain Python."""

    def kl(a, b):
        return math.fsum(x * math.log(x / y) for x, y in zip(a, b) if x > 0)

    mixture = [(1 - beta) * x + beta * y for x, y in zip(p, q)]
    return {
        "forward_kl": lambda: kl(q, p),
        "reverse_kl": lambda: kl(p, q),
        "jsd": lambda: beta * kl(q, mixture) + (1 - beta) * kl(p, mixture),
        "tvd": lambda: 0.5 * math.fsum(abs(x - y) for x, y in zip(p, q)),
    }[kind]()


def case(dtype=torch.float64, tokens=7, vocabulary=11, width=5, teacher_width=6):
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    return (
        draw(tokens, width),
        draw(vocabulary, width),
        targets,
        draw(tokens, teacher_width),
        draw(vocabulary, teacher_width),
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("kind", KINDS)
def test_every_divergence_equals_the_sum_written_out(kind, temperature):
    hidden, weight, targets, teacher_hidden, teacher_weight = case()
    stats = distillation_statistics(
        hidden, weight, targets, make_divergence(kind, 0.3), teacher_hidden_NE=teacher_hidden,
        teacher_weight_VE=teacher_weight, temperature=temperature, chunk_tokens=3,
    )  # fmt: skip
    p = (hidden @ weight.T / temperature).softmax(-1).tolist()
    q = (teacher_hidden @ teacher_weight.T / temperature).softmax(-1).tolist()
    assert stats.divergence_N.tolist() == pytest.approx([reference(kind, *pair) for pair in zip(p, q)], abs=1e-12)
    at_one = (hidden @ weight.T).softmax(-1)
    assert stats.cross_entropy_N.tolist() == pytest.approx(
        [-math.log(at_one[row, target]) for row, target in enumerate(targets)], abs=1e-12
    )


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_finite_differences(kind):
    hidden, weight, targets, teacher_hidden, teacher_weight = case(tokens=3, vocabulary=5, width=2)

    def loss(hidden, weight):
        stats = distillation_statistics(
            hidden, weight, targets, make_divergence(kind, 0.3), teacher_hidden_NE=teacher_hidden,
            teacher_weight_VE=teacher_weight, temperature=2.0, chunk_tokens=2,
        )  # fmt: skip
        return stats.divergence_N.sum() + 0.5 * stats.cross_entropy_N.sum()

    assert torch.autograd.gradcheck(loss, (hidden.requires_grad_(), weight.requires_grad_()))


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 1.0])
def test_jensen_shannon_is_the_loss_of_trl(beta):
    from trl.experimental.gkd import GKDTrainer

    hidden, weight, targets, teacher_hidden, teacher_weight = case(torch.float32)
    stats = distillation_statistics(
        hidden, weight, targets, jensen_shannon(beta), teacher_hidden_NE=teacher_hidden,
        teacher_weight_VE=teacher_weight, temperature=2.0,
    )  # fmt: skip
    theirs = GKDTrainer.generalized_jsd_loss(
        (hidden @ weight.T)[None],
        (teacher_hidden @ teacher_weight.T)[None],
        beta=beta,
        temperature=2.0,
        reduction="sum",
    )
    assert float(stats.divergence_N.sum()) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_equal_to_the_student_costs_nothing_and_pulls_nowhere(kind):
    hidden, weight, targets, *_ = case()
    stats = distillation_statistics(
        hidden.requires_grad_(), weight, targets, make_divergence(kind), teacher_hidden_NE=hidden.detach(),
        teacher_weight_VE=weight, temperature=2.0,
    )  # fmt: skip
    assert stats.divergence_N.abs().max() < 1e-12
    (gradient,) = torch.autograd.grad(stats.divergence_N.sum(), hidden)
    assert gradient.abs().max() < 1e-12


def test_an_interpolated_target_starts_at_the_student_and_ends_at_the_teacher():
    hidden, weight, targets, teacher_hidden, teacher_weight = case()
    teacher = {"teacher_hidden_NE": teacher_hidden, "teacher_weight_VE": teacher_weight}

    def divergence(share):
        kl = make_divergence("forward_kl")
        return distillation_statistics(hidden, weight, targets, kl, interpolation=share, **teacher).divergence_N

    assert divergence(0.0).abs().max() < 1e-12
    logits, teacher_logits = hidden @ weight.T, teacher_hidden @ teacher_weight.T
    p, q = logits.softmax(-1).tolist(), (0.75 * logits + 0.25 * teacher_logits).softmax(-1).tolist()
    assert divergence(0.25).tolist() == pytest.approx([reference("forward_kl", *pair) for pair in zip(p, q)], abs=1e-12)


def test_padded_vocabulary_rows_and_chunks_change_nothing():
    hidden, weight, targets, teacher_hidden, teacher_weight = case()
    padded = torch.cat([teacher_weight, 9 * torch.ones(4, teacher_weight.shape[1], dtype=torch.float64)])
    kl = make_divergence("reverse_kl")
    plain = distillation_statistics(
        hidden, weight, targets, kl, teacher_hidden_NE=teacher_hidden, teacher_weight_VE=teacher_weight
    )
    other = distillation_statistics(
        hidden, weight, targets, kl, teacher_hidden_NE=teacher_hidden, teacher_weight_VE=padded, chunk_tokens=1
    )
    assert torch.allclose(plain.divergence_N, other.divergence_N, atol=1e-12)


def test_the_ensemble_teacher_is_the_mean_of_its_members():
    hidden, weight, targets, teacher_hidden, teacher_weight = case()
    stats = distillation_statistics(
        hidden, weight, targets, make_divergence("forward_kl"),
        teacher_hidden_NE=torch.cat([teacher_hidden, hidden], 1), teacher_weight_VE=[teacher_weight, weight],
    )  # fmt: skip
    p = (hidden @ weight.T).softmax(-1)
    q = ((teacher_hidden @ teacher_weight.T).softmax(-1) + p) / 2
    expected = [reference("forward_kl", *pair) for pair in zip(p.tolist(), q.tolist())]
    assert stats.divergence_N.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl"])
def test_top_k_is_exact_with_all_ids_but_one_and_never_above_the_exact_divergence(kind):
    hidden, weight, _, teacher_hidden, teacher_weight = case()
    logp, logq = (hidden @ weight.T).log_softmax(-1), (teacher_hidden @ teacher_weight.T).log_softmax(-1)
    divergence, exact = make_divergence(kind), None
    for k in (10, 5, 2):
        ids = logq.topk(k).indices
        found = top_k_divergence(divergence, logp.gather(1, ids), logq.gather(1, ids))
        exact = divergence(logp, logq) if exact is None else exact
        assert (found <= exact + 1e-9).all()
        if k == 10:
            assert torch.allclose(found, exact, atol=1e-9)


def test_sampled_ids_estimate_the_forward_kl_and_its_gradient_without_bias():
    hidden, weight, _, teacher_hidden, teacher_weight = case(tokens=1)
    logits = (hidden @ weight.T).requires_grad_()
    logq = (teacher_hidden @ teacher_weight.T).log_softmax(-1)
    exact = make_divergence("forward_kl")(logits.log_softmax(-1), logq)
    (gradient,) = torch.autograd.grad(exact.sum(), logits)
    generator, entropy = torch.Generator().manual_seed(1), -(logq.exp() * logq).sum(-1)
    values, gradients = [], []
    for _ in range(4000):
        ids = torch.multinomial(logq.exp(), 12, replacement=True, generator=generator)
        value = sampled_forward_kl(logits.log_softmax(-1).gather(1, ids), entropy)
        values.append(value.detach())
        gradients.append(torch.autograd.grad(value.sum(), logits)[0])
    for draws, truth in ((torch.stack(values), exact.detach()), (torch.stack(gradients), gradient)):
        standard_error = draws.std(0) / math.sqrt(len(draws))
        assert ((draws.mean(0) - truth).abs() < 3.5 * standard_error + 1e-9).all()


def test_a_beta_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], not 1.5"):
        make_divergence("jsd", 1.5)
