"""The policy gradient in expectation, by brute force: every completion of a tiny policy, weighted by its probability.

The policy is a table of logits, one row per prefix, so the true objective and its gradient are sums with no sampling in
them: J = sum_y p(y) (score(y) - coefficient * log p(y) / q(y)).
"""

import itertools

import pytest
import torch

from reward_models import BlendedScores
from rl_distill.config import ConfigError, load_config
from rl_distill.maths.kl import exact_kl, kl_k1, kl_k2
from rl_distill.maths.losses import policy_loss
from rl_distill.ppo.coefficients import FixedCoefficient
from rl_distill.ppo.rollout_building import Sampled, TokenStates, build_rollout
from rl_distill.teachers import TeacherScores
from rl_distill.types import Completion, Finish, Problem

V, END, COEFFICIENT = 3, 0, 0.7
Row = tuple[int, ...]


def completions_up_to(length: int) -> list[Row]:
    """Every completion: tokens up to END, or `length` tokens without it."""
    rows = itertools.chain.from_iterable(itertools.product(range(V), repeat=n) for n in range(1, length + 1))
    return [row for row in rows if END not in row[:-1] and (row[-1] == END or len(row) == length)]


class Table:
    """Logits of every prefix, for policy (with gradient) and teacher; a value and a score for each place."""

    def __init__(self, length: int) -> None:
        torch.manual_seed(length)
        self.rows = completions_up_to(length)
        prefixes = sorted({row[:t] for row in self.rows for t in range(len(row))})
        self.index = {prefix: i for i, prefix in enumerate(prefixes)}
        shape = (len(prefixes), V)
        self.policy = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        self.teacher = torch.randn(shape, dtype=torch.float64)
        self.values = torch.randn(len(prefixes), dtype=torch.float64)
        self.score = dict(zip(self.rows, torch.randn(len(self.rows), dtype=torch.float64).tolist(), strict=True))

    def places(self, rows: list[Row]) -> torch.Tensor:
        return torch.tensor([self.index[row[:t]] for row in rows for t in range(len(row))])

    def logprobs(self, logits: torch.Tensor, rows: list[Row]) -> torch.Tensor:
        """Flat: the log-probability of each token of these rows."""
        tokens = torch.tensor([token for row in rows for token in row])
        return logits.log_softmax(-1)[self.places(rows), tokens]

    def log_likelihood(self, logits: torch.Tensor, row: Row) -> torch.Tensor:
        return self.logprobs(logits, [row]).sum()

    def true_gradient(self) -> torch.Tensor:
        """Of -J, by autograd through the probabilities themselves."""
        total = torch.zeros((), dtype=torch.float64)
        for row in self.rows:
            log_p = self.log_likelihood(self.policy, row)
            penalty = log_p - self.log_likelihood(self.teacher, row)
            total = total - log_p.exp() * (self.score[row] - COEFFICIENT * penalty)
        return torch.autograd.grad(total, self.policy)[0]

    def rollout(self, rows: list[Row], **settings):
        config = load_config(
            None,
            {
                "anchor.placement": "reward",
                "anchor.estimator": "k1",
                "ppo.lam": 1.0,
                "ppo.normalize_advantages": "none",
                **{name.replace("__", "."): value for name, value in settings.items()},
            },
        )
        finishes = [Finish.STOP if row[-1] == END else Finish.LENGTH for row in rows]
        sampled = Sampled(
            step=0,
            problems=[Problem("task", "key", "prompt")] * len(rows),
            prompt_ids=[[1]] * len(rows),
            completions=[Completion("", list(row), end) for row, end in zip(rows, finishes, strict=True)],
            temperature=1.0,
        )
        logprobs_N = self.logprobs(self.policy, rows).detach()
        kl_N = exact_kl(self.policy.detach(), self.teacher)[self.places(rows)]
        teacher = TeacherScores(
            torch.empty(len(logprobs_N), 0), self.logprobs(self.teacher, rows), torch.zeros_like(logprobs_N)
        )
        states = TokenStates(
            logprobs_N, torch.zeros_like(logprobs_N), kl_N, self.values[self.places(rows)], teacher, kl_N[:, None]
        )
        scores = BlendedScores([self.score[row] for row in rows], {})
        return build_rollout(config, FixedCoefficient(COEFFICIENT), sampled, states, scores)

    def losses(self, rows: list[Row], **settings) -> list[torch.Tensor]:
        """The trainer's policy loss of each row, at the policy that sampled it."""
        advantages = self.rollout(rows, **settings).advantages_N.split([len(row) for row in rows])
        losses = []
        for row, advantages_n in zip(rows, advantages, strict=True):
            logprobs_n = self.logprobs(self.policy, [row])
            every = torch.ones(len(row))
            loss, _ = policy_loss(
                logprobs_n, logprobs_n.detach(), advantages_n, every, clip_low=0.2, clip_high=0.2, count=1
            )
            losses.append(loss)
        return losses


@pytest.mark.parametrize("length", [1, 2, 3])
def test_gae_with_the_anchor_in_the_reward_follows_score_minus_kl_of_whole_completions(length):
    table = Table(length)
    likelihoods = [table.log_likelihood(table.policy, row).exp().detach() for row in table.rows]
    assert sum(likelihoods) == pytest.approx(1.0)
    expected_loss = sum(p * loss for p, loss in zip(likelihoods, table.losses(table.rows), strict=True))
    found = torch.autograd.grad(expected_loss, table.policy)[0]
    assert found.norm() > 0.1
    torch.testing.assert_close(found, table.true_gradient(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("length", [1, 2])
def test_group_means_with_the_anchor_in_the_reward_follow_half_of_it_with_two_rows_per_prompt(length):
    table = Table(length)
    pairs = list(itertools.product(table.rows, table.rows))
    rows = [row for pair in pairs for row in pair]
    settings = {"ppo__advantage": "group_mean", "ppo__group_size": 2}
    losses = table.losses(rows, **settings)
    likelihood = {row: table.log_likelihood(table.policy, row).exp().detach() for row in table.rows}
    expected_loss = sum(
        likelihood[first] * likelihood[second] * (losses[2 * i] + losses[2 * i + 1]) / 2
        for i, (first, second) in enumerate(pairs)
    )
    found = torch.autograd.grad(expected_loss, table.policy)[0]
    assert found.norm() > 0.05
    torch.testing.assert_close(found, table.true_gradient() / 2, rtol=1e-6, atol=1e-6)


def test_why_the_exact_kl_is_refused_in_the_reward_and_k1_in_the_loss():
    table = Table(1)
    p_V = table.policy[0].softmax(-1)
    logp_V, logq_V = table.policy[0].log_softmax(-1), table.teacher[0].log_softmax(-1)

    def gradient(expected_loss):
        return torch.autograd.grad(expected_loss, table.policy, retain_graph=True)[0]

    truth = gradient(exact_kl(table.policy[0], table.teacher[0]))
    assert truth.norm() > 0.1
    exact = exact_kl(table.policy[0], table.teacher[0]).detach()  # the same whatever the token: a baseline
    assert gradient((p_V.detach() * logp_V * exact).sum()).norm() < 1e-12
    k2_in_reward = gradient((p_V.detach() * logp_V * kl_k2(logp_V, logq_V).detach()).sum())
    assert (k2_in_reward - truth).norm() > 0.5 * truth.norm()
    assert gradient((p_V.detach() * kl_k1(logp_V, logq_V)).sum()).norm() < 1e-12
    torch.testing.assert_close(gradient((p_V.detach() * kl_k2(logp_V, logq_V)).sum()), truth)
    torch.testing.assert_close(gradient((p_V.detach() * logp_V * kl_k1(logp_V, logq_V).detach()).sum()), truth)


@pytest.mark.parametrize(
    ("placement", "estimator", "reason"),
    [
        ("reward", "exact", r"does not depend on the token.* anchor\.estimator: k1, or anchor\.placement: loss"),
        ("reward", "top_k", r"does not depend on the token.* anchor\.estimator: k1, or anchor\.placement: loss"),
        ("reward", "k2", r"gradient of another function.* anchor\.estimator: k1, or anchor\.placement: loss"),
        ("reward", "k3", r"gradient of another function.* anchor\.estimator: k1, or anchor\.placement: loss"),
        ("loss", "k1", r"zero on average.* anchor\.estimator: exact, or k2 .* or anchor\.placement: reward"),
    ],
)
def test_estimators_without_the_right_gradient_are_refused_with_the_cure(placement, estimator, reason):
    with pytest.raises(ConfigError, match=reason):
        load_config(None, {"anchor.placement": placement, "anchor.estimator": estimator})
