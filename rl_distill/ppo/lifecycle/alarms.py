"""Alarms of a run that goes wrong while its loss looks fine, each a line with what to do, and a 0 or 1 in the metrics.

May assume one record per PPO step, as Trainer keeps them: nothing else is remembered, so a resumed run goes on as one
that never stopped. An alarm never stops a run (ppo.stop_at_kl and ppo.stop_at_unscored_steps do).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from ...config import AlarmsConfig

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

Record = Mapping[str, Any]
Records = Sequence[Record]
PREFIX = "alarm/"
LENGTH, CUT, SIGNAL = "completions/mean_length", "completions/cut_by_length", "groups/with_signal"
REPEATED = "completions/repeated"
NUM_FIRST = 5
"""Steps at the start of a run that later ones are compared with."""

ADVICE = {
    "kl_jump": "the policy breaks away from the teacher: lower ppo.learning_rate, raise anchor.coef, or resume from "
    "the last checkpoint before this",
    "length_collapse": "the answers shrink to a few tokens: look at them (log_completions_every), lower "
    "ppo.learning_rate, and check that no reward pays for short or empty answers",
    "length_explosion": "answers grow until they are cut: raise generation.max_completion_length, set "
    "ppo.mask_truncated, or lower ppo.learning_rate; check that no reward pays for length",
    "entropy_collapse": "the policy has become nearly deterministic without earning more: lower ppo.learning_rate, set "
    "ppo.entropy_coef or raise anchor.coef",
    "repetition": "answers repeat themselves: lower ppo.learning_rate, raise anchor.coef, or add the reward "
    "`repetition`",
    "no_signal": "the rewards teach nothing: take easier or harder problems, more completions per prompt "
    "(ppo.group_size), a warm-up (warm_up), or a reward with partial credit; look whether answers have the "
    "form that the reward reads",
}


def active_alarms(earlier: Records, now: Record, settings: AlarmsConfig) -> dict[str, str]:
    """The alarms raised by this step's metrics, by name, with what they saw; `earlier` holds the previous steps."""
    watches = {
        "kl_jump": _kl_jump,
        "length_collapse": _length_collapse,
        "length_explosion": _length_explosion,
        "entropy_collapse": _entropy_collapse,
        "repetition": _repetition,
        "no_signal": _no_signal,
    }
    found = {name: watch(earlier, now, settings) for name, watch in watches.items()}
    return {name: words for name, words in found.items() if words}


def alarm_metrics(history: Records, now: Record, settings: AlarmsConfig) -> dict[str, float]:
    """`alarm/NAME`: 1 where it is active at this step, else 0; empty where alarms are switched off."""
    if not settings.enabled:
        return {}
    active = active_alarms(of_steps(history), now, settings)
    return {PREFIX + name: float(name in active) for name in ADVICE}


def of_steps(history: Records) -> list[Record]:
    """The records of PPO steps among those of evaluations and of the end."""
    return [record for record in history if "ppo_step" in record]


def values(records: Records, name: str) -> list[float]:
    """The numbers of that name; NaN and what is absent left out."""
    found = [record.get(name) for record in records]
    return [float(value) for value in found if value is not None and not math.isnan(value)]


def first_and_now(earlier: Records, now: Record, name: str) -> tuple[float, float] | None:
    """(median of the run's first steps, the number now); None where either is not there."""
    first, present = values(earlier[:NUM_FIRST], name), values([now], name)
    return (median(first), present[0]) if first and present else None


def _kl_jump(earlier: Records, now: Record, settings: AlarmsConfig) -> str:
    recent, present = values(earlier[-settings.window :], "kl"), values([now], "kl")
    if not recent or not present or present[0] < settings.kl_floor:
        return ""
    usual = median(recent)
    if present[0] < settings.kl_factor * usual:
        return ""
    return f"KL to the teacher is {present[0]:.3g} nats per token, {usual:.3g} in the steps before"


def _length_collapse(earlier: Records, now: Record, settings: AlarmsConfig) -> str:
    pair = first_and_now(earlier, now, LENGTH)
    if pair is None or pair[1] > settings.length_collapse * pair[0]:
        return ""
    return f"answers have {pair[1]:.3g} tokens, {pair[0]:.3g} at the start"


def _length_explosion(earlier: Records, now: Record, settings: AlarmsConfig) -> str:
    pair, cut = first_and_now(earlier, now, LENGTH), values([now], CUT)
    if pair is None or not cut or pair[1] < settings.length_growth * pair[0] or cut[0] < settings.cut_share:
        return ""
    return f"answers have {pair[1]:.3g} tokens, {pair[0]:.3g} at the start, and {100 * cut[0]:.0f} % are cut"


def _entropy_collapse(earlier: Records, now: Record, settings: AlarmsConfig) -> str:
    """Only where the reward has not risen: a student that has learned its task is sure of itself, too."""
    pair = first_and_now(earlier, now, "entropy")
    if pair is None or pair[1] > settings.entropy_collapse * pair[0]:
        return ""
    first, recent = values(earlier[:NUM_FIRST], "reward"), values([*earlier, now][-NUM_FIRST:], "reward")
    if first and recent and sum(recent) / len(recent) > sum(first) / len(first):
        return ""
    return f"entropy is {pair[1]:.3g} nats per token, {pair[0]:.3g} at the start, and the reward has not risen"


def _repetition(earlier: Records, now: Record, settings: AlarmsConfig) -> str:
    present = values([now], REPEATED)
    if not present or present[0] < settings.repetition:
        return ""
    return f"{100 * present[0]:.0f} % of the four-token sequences of an answer occur in it before"


def _no_signal(earlier: Records, now: Record, settings: AlarmsConfig) -> str:
    recent = [*earlier, now][-settings.no_signal_steps :]
    signals = values(recent, SIGNAL)
    if len(signals) < settings.no_signal_steps or any(signals):
        return ""
    rewards = values(recent, "reward")
    mean = f" (mean reward {sum(rewards) / len(rewards):.3g})" if rewards else ""
    return f"all rewards within every group were equal for {len(signals)} steps{mean}"


class Alarms(TrainerCallback):
    """Prints an alarm when it becomes active, and again only after it was silent for `window` steps.

    Which are active is in the record (`alarm_metrics`); only the words of those to be told are made here.
    """

    def __init__(self, settings: AlarmsConfig) -> None:
        self.settings = settings

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if not self.settings.enabled or not state.is_world_process_zero or not logs or "ppo_step" not in logs:
            return
        steps = of_steps(state.log_history)
        earlier = steps[:-1]  # Trainer has put this step's own record last
        recent = earlier[-self.settings.window :]
        active = [name for name in ADVICE if logs.get(PREFIX + name)]
        new = [name for name in active if not any(record.get(PREFIX + name) for record in recent)]
        words = active_alarms(earlier, logs, self.settings) if new else {}
        for name in new:
            print(f"\nalarm {name} at step {logs['ppo_step']}: {words[name]}; {ADVICE[name]}", flush=True)
