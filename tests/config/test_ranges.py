"""Every number has a range, checked at parse, and every setting a meaning: none is accepted that means nothing."""

import dataclasses
import math
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_distill.config import ConfigError, load_config
from rl_distill.config.command_line import describe
from rl_distill.config.ranges import Interval
from rl_distill.config.reading import build, set_dotted
from rl_distill.config.reference import settings_of
from rl_distill.reward_model.settings import RewardModelRunConfig

SETTINGS = {setting.name: setting for setting in settings_of(RewardModelRunConfig)}
NUMBERS = [name for name, setting in SETTINGS.items() if setting.range is not None]


def numeric_type(cls: type, name: str) -> type | None:
    """int or float for a dotted name whose type hint holds one of them."""
    head, _, rest = name.partition(".")
    hint = typing.get_type_hints(cls)[head]
    parts = (hint, *typing.get_args(hint))
    if rest:
        return numeric_type(next(part for part in parts if dataclasses.is_dataclass(part)), rest)
    return next((kind for kind in (int, float) if kind in parts), None)


def build_with(name, value):
    """The settings as parsed, without the checks of one setting against another."""
    settings = {}
    set_dotted(settings, name, value)
    return build(RewardModelRunConfig, settings, "")


def at_ends(name):
    """(numbers just inside, numbers just outside) of a setting's range, found by hand from its text."""
    allowed, kind = SETTINGS[name].range, numeric_type(RewardModelRunConfig, name)
    inside, outside = [], [-math.inf, math.inf, math.nan]
    for end, included, away in (
        (allowed.low, allowed.with_low, -math.inf),
        (allowed.high, allowed.with_high, math.inf),
    ):
        if math.isinf(end):
            inside.append(10**12)
        elif kind is int:
            inside.append(int(end))
            outside.append(int(end) + (1 if away > 0 else -1))
        else:
            (inside if included else outside).append(end)
            outside.append(math.nextafter(end, away))
            inside.append(math.nextafter(end, -away))
    return inside, outside


def test_every_number_has_a_range_and_nothing_else_has_one():
    for name, setting in SETTINGS.items():
        assert (numeric_type(RewardModelRunConfig, name) is not None) == (setting.range is not None), name
    assert len(NUMBERS) > 90


def test_integers_have_whole_ends_that_belong_to_the_range():
    for name in NUMBERS:
        if numeric_type(RewardModelRunConfig, name) is int:
            allowed = SETTINGS[name].range
            ends = [(allowed.low, allowed.with_low), (allowed.high, allowed.with_high)]
            assert all(included and float(end).is_integer() for end, included in ends if math.isfinite(end)), name


@pytest.mark.parametrize("name", NUMBERS)
def test_just_outside_is_refused_in_one_line_and_just_inside_accepted(name):
    inside, outside = at_ends(name)
    for value in inside:
        build_with(name, value)
    for value in outside:
        with pytest.raises(ConfigError) as caught:
            build_with(name, value)
        message = str(caught.value)
        assert "\n" not in message
        assert name in message
        assert str(value) in message


@given(st.sampled_from(NUMBERS), st.floats(allow_nan=True, allow_infinity=True))
def test_a_number_is_taken_exactly_where_it_lies_in_the_range(name, value):
    allowed, whole = SETTINGS[name].range, numeric_type(RewardModelRunConfig, name) is int
    fits = allowed.low <= value <= allowed.high and math.isfinite(value)
    fits = fits and (value != allowed.low or allowed.with_low) and (value != allowed.high or allowed.with_high)
    try:
        build_with(name, value)
    except ConfigError:
        assert not fits or (whole and not value.is_integer())
    else:
        assert fits


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("seed", [-1]),
        ("num_threads", [0, -1]),
        ("log_completions_every", [0]),
        ("generation.temperature", [0, -1]),
        ("generation.temperature_end", [0]),
        ("generation.top_p", [0, 1.5]),
        ("generation.max_completion_length", [0]),
        ("generation.batch_size", [0]),
        ("ppo.gamma", [2, -0.1]),
        ("ppo.lam", [1.5]),
        ("ppo.clip_low", [1.5, -0.5, 0]),
        ("ppo.clip_high", [-0.5, 0]),
        ("ppo.dual_clip", [0.5, 1]),
        ("ppo.value_clip", [0, -1]),
        ("ppo.num_steps", [0]),
        ("ppo.batch_size", [0]),
        ("ppo.group_size", [0]),
        ("ppo.num_epochs", [0]),
        ("ppo.num_minibatches", [0]),
        ("ppo.micro_batch_size", [0]),
        ("ppo.critic_warmup_steps", [-1]),
        ("ppo.warmup_steps", [-1]),
        ("ppo.max_grad_norm", [0, -1]),
        ("ppo.learning_rate", [0, -1e-4]),
        ("ppo.policy_coef", [-1]),
        ("ppo.value_coef", [-1]),
        ("ppo.entropy_coef", [-1]),
        ("ppo.stop_at_kl", [0]),
        ("ppo.adam_beta2", [1]),
        ("anchor.coef", [-1]),
        ("anchor.evidence_scale", [0]),
        ("anchor.evidence_decay", [1]),
        ("anchor.top_k", [0]),
        ("evaluation.every_steps", [0]),
        ("evaluation.patience", [0]),
        ("checkpoint.every_steps", [0]),
        ("checkpoint.keep_last", [0]),
        ("distributed.timeout_s", [0]),
        ("teacher.num_processes", [0]),
        ("teacher.server.num_connections", [0]),
        ("reward_model.teacher_dropout", [1.5]),
    ],
)
def test_settings_without_meaning_are_refused(name, values):
    for value in values:
        with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
            load_config(None, {name: value}, RewardModelRunConfig)


def test_an_entry_of_teachers_is_held_to_the_same_ranges():
    with pytest.raises(ConfigError, match=r"teachers\[1\]\.micro_batch_size must be at least 1, not 0"):
        load_config(None, {"teachers": [{"model": "a"}, {"model": "b", "micro_batch_size": 0}]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "anneal", "anneal_start": 0.7}, "anneal_start (0.7) must be below anchor.anneal_end (0.7)"),
        ({"schedule": "adaptive", "coef": 0}, "adaptive multiplies anchor.coef"),
        ({"coef": 0.01}, "evidence_floor (0.05) must be at most anchor.coef (0.01)"),
    ],
)
def test_settings_of_the_anchor_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ConfigError) as caught:
        load_config(None, {f"anchor.{name}": value for name, value in settings.items()})
    assert message in str(caught.value)


def test_a_demo_model_whose_heads_do_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"demo.student.hidden_size \(90\) must be a multiple of twice its num_heads"):
        load_config(None, {"demo.student.hidden_size": 90})


@pytest.mark.parametrize(
    ("text", "number", "fits"),
    [
        ("[0, 1]", 1, True),
        ("[0, 1)", 1, False),
        ("(0, inf)", 0, False),
        ("[-1, 1]", -1, True),
        ("[0, 1.5]", 1.6, False),
    ],
)
def test_intervals_by_hand(text, number, fits):
    assert (number in Interval.parse(text)) is fits


def test_a_misspelt_interval_is_refused():
    with pytest.raises(ValueError, match="no interval"):
        Interval.parse("0..1")


def test_every_setting_says_what_it_means_in_one_line():
    for name, setting in SETTINGS.items():
        assert setting.meaning.endswith("."), name
        assert "\n" not in setting.meaning


def test_help_shows_default_range_and_meaning():
    lines = describe(RewardModelRunConfig).splitlines()
    assert "  ppo.lam = 0.95 (at least 0 and at most 1): GAE's lambda per token." in lines
    assert "  demo.teacher.hidden_size = 128 (at least 1): A multiple of twice num_heads." in lines
    assert "  ppo.dual_clip = None (above 1): Bounds the loss of a token" in "\n".join(lines)
