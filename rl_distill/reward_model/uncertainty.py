"""Fits what a trained reward model knows of its own errors, and measures on held-out answers whether it is true.

The posterior is over the rows it learned from, the noise from prompts kept aside for it: neither sees a held-out row.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

from reward_models.audit import spearman
from reward_models.learned_model import Judgements, LearnedRewardModel, judge, last_features
from reward_models.learned_posterior import noise_of

from .examples import Example
from .probes import is_probe
from .settings import RewardModelRunConfig
from .training import RegressionBatches
from .views import View, views_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEVELS = (0.5, 0.8, 0.95)
"""Of the intervals whose coverage is measured."""


def keep_aside(config: RewardModelRunConfig, examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """(examples to learn from, examples for the noise), which share no prompt's key."""
    keys = sorted({example.key for example in examples})
    random.Random(f"{config.split_seed}:calibration").shuffle(keys)
    aside = set(keys[: round(config.reward_model.calibration_share * len(keys))])
    learn = [example for example in examples if example.key not in aside]
    return learn, [example for example in examples if example.key in aside]


def fit(
    config: RewardModelRunConfig,
    model: LearnedRewardModel,
    tokenizer: PreTrainedTokenizerBase,
    learned_from: Sequence[Example],
    aside: Sequence[Example],
) -> None:
    """Sets the model's posterior and, by view, the noise of its two outputs; does nothing to a model without one."""
    refit(config, model, tokenizer, learned_from)
    honest = [example for example in aside if example.source == "student"]
    if honest and model.posterior is not None:
        model.config.noise = {view.name: _noise(model, tokenizer, honest, view) for view in views_of(config)}


def refit(
    config: RewardModelRunConfig,
    model: LearnedRewardModel,
    tokenizer: PreTrainedTokenizerBase,
    learned_from: Sequence[Example],
) -> None:
    """The posterior alone, after the weights changed."""
    if model.posterior is not None:
        rows = RegressionBatches(tokenizer, model.config.max_tokens, config).encoded(learned_from)
        model.posterior.fit(last_features(model, rows, tokenizer.pad_token_id))


def _noise(
    model: LearnedRewardModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], view: View
) -> list[float]:
    """[of the score, of the probability of being right]"""
    found = judged(model, tokenizer, examples, view)
    known = [number for number, example in enumerate(examples) if example.verdict is not None]
    residuals = [(examples[n].verdict or 0.0) - found.correct[n] for n in known]
    return [
        noise_of([e.score - s for e, s in zip(examples, found.scores, strict=True)], found.leverages),
        noise_of(residuals, [found.leverages[n] for n in known]),
    ]


def judged(
    model: LearnedRewardModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], view: View
) -> Judgements:
    """What the model says of the examples, shown of the teacher what the view shows."""
    rows = [
        e.encoded(tokenizer, model.config.max_tokens, with_teacher=view.with_teacher, with_readings=view.with_readings)
        for e in examples
    ]
    return judge(model, rows, tokenizer.pad_token_id)


def uncertainty(scores: Sequence[float], observed: Sequence[float], leverages: Sequence[float], noise: float) -> dict:
    """Coverage of the predictive intervals, quantiles of the spread, and its rank correlation with the error's size."""
    spreads = sorted(noise * leverage**0.5 for leverage in leverages)
    errors = [abs(o - s) for o, s in zip(observed, scores, strict=True)]
    rank = spearman(tuple(leverages), tuple(errors)) if len(errors) > 1 else float("nan")
    return {
        "coverage": {f"{level:g}": coverage(errors, leverages, noise, level) for level in LEVELS},
        "spread": {
            f"{q:g}": spreads[min(len(spreads) - 1, int(q * len(spreads)))] for q in (0.5, 0.9, 0.99) if spreads
        },
        "spearman_spread_error": None if rank != rank else rank,
    }


def coverage(errors: Sequence[float], leverages: Sequence[float], noise: float, level: float) -> float | None:
    """Share of errors within the central interval of a normal with standard deviation noise x sqrt(1 + leverage)."""
    half = NormalDist().inv_cdf(0.5 + level / 2) * noise
    inside = [error <= half * (1 + q) ** 0.5 for error, q in zip(errors, leverages, strict=True)]
    return sum(inside) / len(inside) if inside else None


def spreads_of_probes(examples: Sequence[Example], leverages: Sequence[float], noise: float) -> float | None:
    """Mean spread over the cheats: it should lie above that of honest answers."""
    found = [noise * q**0.5 for example, q in zip(examples, leverages, strict=True) if is_probe(example)]
    return sum(found) / len(found) if found else None
