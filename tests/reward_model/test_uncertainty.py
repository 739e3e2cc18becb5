"""What the model knows of its errors: leverages against an independent regression, coverage and abstention by hand."""

import json
import math
import random
from statistics import NormalDist

import numpy
import pytest
import torch

from reward_models.learned import QUALITY_FILE, cautious, learned
from reward_models.learned_posterior import MAX_FEATURES, LastLayerPosterior, noise_of
from tests.reward_model.test_training import examples_where_the_word_decides, make_config, quality
from tests.tiny_run import make_context


def test_leverages_are_those_of_bayesian_linear_regression():
    """Variance of the mean from the posterior covariance of the weights, by numpy in the primal form."""
    rng = numpy.random.default_rng(0)
    rows, asked, ridge, noise = rng.normal(size=(30, 4)), rng.normal(size=(5, 4)), 0.7, 0.3
    posterior = LastLayerPosterior(4)
    posterior.fit(torch.tensor(rows), ridge)
    design, wanted = (numpy.hstack([x, numpy.ones((len(x), 1))]) for x in (rows, asked))
    covariance = numpy.linalg.inv(design.T @ design / noise**2 + ridge / noise**2 * numpy.eye(5))
    expected = numpy.sqrt(numpy.einsum("ni,ij,nj->n", wanted, covariance, wanted))
    assert (noise * posterior(torch.tensor(asked)).sqrt()).numpy() == pytest.approx(expected, rel=1e-5)


def test_one_feature_by_hand():
    """Rows 1 and -1 with ridge 1: precision diag(3, 3), so the row x has leverage (x^2 + 1) / 3."""
    posterior = LastLayerPosterior(1)
    posterior.fit(torch.tensor([[1.0], [-1.0]]), ridge=1.0)
    assert posterior(torch.tensor([[0.0], [2.0]])).tolist() == pytest.approx([1 / 3, 5 / 3])


def test_rows_unlike_those_learned_from_have_more_leverage_also_after_projection():
    torch.manual_seed(0)
    posterior = LastLayerPosterior(2 * MAX_FEATURES)
    basis = torch.randn(20, 2 * MAX_FEATURES)
    seen = torch.randn(300, 20) @ basis
    posterior.fit(seen)
    assert posterior.factor.shape == (MAX_FEATURES + 1, MAX_FEATURES + 1)
    like, unlike = torch.randn(50, 20) @ basis, torch.randn(50, 2 * MAX_FEATURES) * 20**0.5
    assert posterior(like).max() < posterior(unlike).min()


def test_noise_is_the_maximum_of_the_likelihood():
    residuals, leverages = [0.1, -0.4, 0.3], [0.0, 1.0, 0.5]

    def log_likelihood(s):
        return sum(
            NormalDist(0, s * math.sqrt(1 + q)).pdf(r) and math.log(NormalDist(0, s * math.sqrt(1 + q)).pdf(r))
            for r, q in zip(residuals, leverages, strict=True)
        )

    best = max((i / 10_000 for i in range(500, 10_000)), key=log_likelihood)
    assert noise_of(residuals, leverages) == pytest.approx(best, abs=1e-4)
    assert noise_of([], []) == 0.0


def test_coverage_of_normal_errors_is_the_level_and_counts_by_hand():
    from rl_distill.reward_model.uncertainty import coverage

    rng = random.Random(0)
    leverages = [rng.random() for _ in range(20_000)]
    errors = [abs(rng.gauss(0, 0.2 * math.sqrt(1 + q))) for q in leverages]
    for level in (0.5, 0.8, 0.95):
        assert coverage(errors, leverages, 0.2, level) == pytest.approx(level, abs=0.01)
    assert coverage([0.1, 0.19, 0.25], [0.0, 0.0, 3.0], 0.1, 0.8) == pytest.approx(2 / 3)  # within 0.128, 0.128, 0.256
    assert coverage([], [], 0.1, 0.8) is None


def test_caution_takes_off_spreads_and_abstains_above_the_limit():
    assert cautious([0.8, 0.3], [0.1, 0.2], 0.0, None) == [0.8, 0.3]
    assert cautious([0.8, 0.3], [0.1, 0.2], 2.0, None) == [pytest.approx(0.6), 0.0]
    assert cautious([0.8, 0.3], [0.1, 0.2], 1.0, 0.15) == [pytest.approx(0.7), None]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"caution": -1.0}, "caution is at least 0"),
        ({"abstain_above": 0.0}, "abstain_above is a spread above 0"),
        ({"caution": 1.0}, "does not know its spread"),
    ],
)
def test_what_makes_no_sense_or_was_not_fitted_is_refused(tmp_path, kwargs, message):
    (tmp_path / QUALITY_FILE).write_text(json.dumps(quality()))
    with pytest.raises(ValueError, match=message):
        learned(str(tmp_path), **kwargs)


def test_a_trained_model_is_unsure_of_what_it_never_saw_and_reloads_so(tmp_path):
    from rl_distill.reward_model import quality as qualities
    from rl_distill.reward_model import uncertainty
    from rl_distill.reward_model.training import make_reward_model, train

    config = make_config(tmp_path, num_steps=40, batch_size=8, calibration_share=0.3)
    model, tokenizer = make_reward_model(config, make_context(config))
    rows = examples_where_the_word_decides(40, seed=1)
    learn, aside = uncertainty.keep_aside(config, rows)
    assert not {row.key for row in learn} & {row.key for row in aside}
    assert len({row.key for row in aside}) == 12
    train(config, model, tokenizer, learn)
    uncertainty.fit(config, model, tokenizer, learn, aside)
    heldout = examples_where_the_word_decides(20, seed=2)
    found, shown = qualities.quality(config, model, tokenizer, heldout)
    told = found["with_teacher"]["uncertainty"]["score"]
    assert set(told["coverage"]) == {"0.5", "0.8", "0.95"}
    assert told["coverage"]["0.95"] > 0.8
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    qualities.admit(config, found)

    students = [row for row in heldout if row.source == "student"]
    likely = [{"prompt": row.prompt, "text": row.candidate} for row in students]
    strange = [{"prompt": row.prompt, "text": "zzz (((( 0 0 0 $$$$ ;;;; def"} for row in students]

    def score(rows, **kwargs):
        asked = {"prompts": [row["prompt"] for row in rows], "completions": [row["text"] for row in rows]}
        return learned(str(tmp_path), force=True, **kwargs)(**asked)

    plain = score(likely)
    assert plain == pytest.approx(shown["without_teacher"].scores, abs=2e-6)
    noise = model.config.noise["without_teacher"][0]
    spreads = [noise * q**0.5 for q in shown["without_teacher"].leverages]
    by_hand = [max(0.0, mean - 2 * spread) for mean, spread in zip(plain, spreads, strict=True)]
    assert score(likely, caution=2.0) == pytest.approx(by_hand, abs=1e-5)
    limit = sorted(spreads)[-1] * 1.01
    assert None not in score(likely, abstain_above=limit)
    assert score(strange, abstain_above=limit) == [None] * len(strange)
