"""Defaults that depend on the model: what a run with your own models uses for settings you left out.

The schema's defaults suit the demo's models of under a million parameters and ruin a pretrained one. May assume a
RunConfig that parsed; imports no torch. What the user stated is never touched.

Sources. Full training by RL at 1e-6 from 0.5B to 7B: verl's PPO and GRPO examples, DAPO (arXiv:2503.14476), TRL's
GRPOConfig. LoRA at ten times that of full training: "LoRA Without Regret" (Schulman et al. 2025). Supervised at 2e-5:
Alpaca's and TRL's. Below 500 M parameters: a straight line, in logarithms, to the demo's rates at 1 M, where this
project measured them. Group means of 8 completions: DeepSeekMath (arXiv:2402.03300); docs/own_models.md says why.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from .model_facts import ModelFacts, read_facts
from .reading import Word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from . import RunConfig, TeacherConfig

SMALL, LARGE = 1e6, 5e8
"""Parameters between which a learning rate falls; it is constant outside."""
PPO_RATES, SUPERVISED_RATES = (7e-4, 1e-6), (3e-3, 2e-5)
"""Of full training at SMALL and at LARGE."""
LORA_FACTOR, VALUE_HEAD_FACTOR, VALUE_TRUNK_FACTOR = 10, 100, 10
"""Of the policy's rate; VALUE_HEAD_FACTOR only where the model's width cannot be read."""
HIGHEST_RATE, HIGHEST_VALUE_RATE = 1e-3, 3e-3
DEMO_WIDTH = 96
"""The width at which HIGHEST_VALUE_RATE was measured. A step of Adam moves a head's value by the rate times the sum of
the features' sizes, so the rate falls as 1 / width (Yang et al. 2022, "Tensor Programs V", output weights)."""
MAX_NEW_TOKENS, GROUP_SIZE = 512, 8
MICRO_BATCHES = ((5e7, 32), (1e9, 8), (4e9, 4), (math.inf, 2))
"""(parameters below, rows of a forward)."""
OF_A_CRITIC = ("critic", "critic_warmup_steps", "value_learning_rate", "value_coef", "value_clip", "lam", "gamma")


class Choice(NamedTuple):
    """A setting by its dotted name, the value it takes, and why."""

    name: str
    value: Any
    reason: str


def with_own_defaults(config: RunConfig, settings: Mapping[str, Any], teachers: Sequence[TeacherConfig]) -> RunConfig:
    """The config with defaults that follow its student; `settings` are those that the user stated, as they were read.

    The demo, and a config that says all of it, come back as they are. `chosen` of the result tells what and why.
    """
    if config.demo is not None or not config.student_source:
        return config
    stated = set(stated_names(settings))
    facts = read_facts(config.student_source)  # of a student to be cut: its teacher's, so rates are on the low side
    choices = [choice for choice in _choices(config, facts, stated, teachers) if choice.name not in stated]
    if not choices:
        return config
    chosen = config.chosen | {choice.name: f"{shown(choice.value)}: {choice.reason}" for choice in choices}
    changed: RunConfig = dataclasses.replace(config, chosen=chosen)
    for choice in choices:
        changed = replaced(changed, choice.name.split("."), choice.value)
    return changed


def stated_names(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all that settings state, sections and what is in them."""
    for key, value in settings.items():
        yield f"{prefix}{key}"
        inner = _section(value) if isinstance(value, Word) else value
        if isinstance(inner, Mapping):
            yield from stated_names(inner, f"{prefix}{key}.")


def _section(word: Word) -> Any:
    """A section typed on the command line, such as `--student.lora "{r: 8}"`; None for text that only looks like it."""
    try:
        return yaml.safe_load(word) if word.lstrip().startswith("{") else None
    except yaml.YAMLError:
        return None


def replaced(config: Any, path: Sequence[str], value: Any) -> Any:
    """A frozen dataclass with the setting at `path` replaced, through all sections on the way."""
    first, rest = path[0], path[1:]
    return dataclasses.replace(config, **{first: replaced(getattr(config, first), rest, value) if rest else value})


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _choices(
    config: RunConfig, facts: ModelFacts, stated: set[str], teachers: Sequence[TeacherConfig]
) -> Iterator[Choice]:
    yield from _advantage(config, stated)
    yield from _rates(config, facts, stated)
    yield _length(config, facts, teachers)
    if facts.has_chat_template and not config.data.chat:
        yield Choice("data.chat", True, "the tokenizer has a chat template (false: prompts as plain text)")
    if config.ppo.micro_batch_tokens is None:
        yield _micro_batch(config, facts)


def _advantage(config: RunConfig, stated: set[str]) -> Iterator[Choice]:
    """Group means, unless the settings speak of a critic or leave no room for groups."""
    wants_critic = any(f"ppo.{name}" in stated for name in OF_A_CRITIC) and "ppo.advantage" not in stated
    wants_critic = wants_critic or ("ppo.advantage" in stated and config.ppo.advantage == "gae")
    size = config.ppo.group_size if "ppo.group_size" in stated else group_size_of(config.ppo.batch_size)
    if wants_critic or size < 2:
        return
    yield Choice("ppo.advantage", "group_mean", "a critic did not help on pretrained models (gae: with one)")
    yield Choice("ppo.group_size", size, f"completions per prompt, {config.ppo.batch_size // size} prompts a step")


def group_size_of(batch_size: int) -> int:
    """The largest number up to GROUP_SIZE that divides the batch."""
    return next(size for size in range(GROUP_SIZE, 0, -1) if batch_size % size == 0)


def _rates(config: RunConfig, facts: ModelFacts, stated: set[str]) -> Iterator[Choice]:
    lora = config.student.lora is not None or (facts.is_adapter and config.student.adapter == "continue")
    how = f"{'LoRA' if lora else 'full training'} of {size_text(facts)}"
    yield Choice("ppo.learning_rate", learning_rate(facts, PPO_RATES, lora), how)
    if any(f"ppo.{name}" in stated for name in ("advantage", *OF_A_CRITIC)) and config.ppo.advantage == "gae":
        yield _value_rate(config, facts)
    for name in ("warm_up", "distill"):
        if getattr(config, name) is not None:
            yield Choice(f"{name}.learning_rate", learning_rate(facts, SUPERVISED_RATES, lora), f"supervised, {how}")


def _value_rate(config: RunConfig, facts: ModelFacts) -> Choice:
    """Of a head by the model's width, of a whole trunk by the policy's rate."""
    name, policy = "ppo.value_learning_rate", learning_rate(facts, PPO_RATES, lora=False)
    if config.ppo.critic != "separate" and facts.hidden_size is not None:
        rate = HIGHEST_VALUE_RATE * min(1.0, DEMO_WIDTH / facts.hidden_size)
        return Choice(name, rounded(rate), f"a value head on {facts.hidden_size} features")
    factor = VALUE_TRUNK_FACTOR if config.ppo.critic == "separate" else VALUE_HEAD_FACTOR
    rate = min(HIGHEST_VALUE_RATE, factor * policy)
    return Choice(name, rounded(rate), f"{factor} times the policy's in full training")


def learning_rate(facts: ModelFacts, rates: tuple[float, float], lora: bool) -> float:
    """At the peak, to one significant digit; a model of unknown size is taken for a large one."""
    share = math.log((facts.parameters or LARGE) / SMALL) / math.log(LARGE / SMALL)
    rate = rates[0] * (rates[1] / rates[0]) ** min(1.0, max(0.0, share))
    return rounded(max(rate, min(HIGHEST_RATE, rate * LORA_FACTOR)) if lora else rate)


def rounded(rate: float) -> float:
    return float(f"{rate:.0e}")


def size_text(facts: ModelFacts) -> str:
    if facts.parameters is None:
        return "a model whose config.json cannot be read yet, taken for a large one"
    number = facts.parameters / 1e6
    return f"{number / 1000:.1f} B parameters" if number >= 1000 else f"{number:.3g} M parameters"


def _length(config: RunConfig, facts: ModelFacts, teachers: Sequence[TeacherConfig]) -> Choice:
    """MAX_NEW_TOKENS, or what the positions of student and teachers leave beside the longest prompt."""
    models = [str(teacher.model) for teacher in teachers if teacher.model and teacher.placement != "remote"]
    limits = [facts.positions, *(read_facts(model).positions for model in dict.fromkeys(models))]
    limit = min((number for number in limits if number is not None), default=None)
    name, reason = "generation.max_completion_length", "room for an answer with its reasoning"
    if limit is None:
        return Choice(name, MAX_NEW_TOKENS, reason)
    room = limit - config.data.max_prompt_length if config.data.max_prompt_length else limit // 2
    value = max(1, min(MAX_NEW_TOKENS, room))
    return Choice(name, value, reason if value == MAX_NEW_TOKENS else f"what {limit} positions leave beside a prompt")


def _micro_batch(config: RunConfig, facts: ModelFacts) -> Choice:
    rows = next(rows for below, rows in MICRO_BATCHES if (facts.parameters or LARGE) < below)
    value = min(rows, config.ppo.batch_size)
    return Choice("ppo.micro_batch_size", value, "rows per forward for this size; bounds memory, not the result")
