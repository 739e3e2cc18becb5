"""Which answers of the teacher count as evidence of how good it is, and the success rates that follow from them.

Assumes problems and texts that are there already; it asks no model.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from reward_models import RewardSpec

from ..config import RunConfig
from ..evals.evaluation import verdicts
from ..ppo.coefficients import SuccessCount, count_successes
from ..startup.rewards import has_gold
from ..teachers.outputs import TeacherOutput
from ..types import Completion, Finish, Problem, Splits

NUM_PROBED = 8
"""Problems of a task that are looked at to see whether its answers can be verified."""


def without_evidence(tasks: Sequence[str], coefficient: float, others: bool) -> str:
    """What it means that answers to these tasks cannot be verified; `others`: those of other tasks can."""
    named = ", ".join(tasks[:5]) + (f" and {len(tasks) - 5} more" if len(tasks) > 5 else "")
    which = f"the tasks {named}" if others else f"any task ({named})"
    return (
        f"anchor.schedule: evidence: no answer to {which} could be verified, so the anchor keeps anchor.coef "
        f"({coefficient:g}) there for the whole run, as under anchor.schedule: fixed. Verifying takes an `answer` "
        "column, or `test` and `entry_point`, and a reward that checks them"
    )


def evidence_problems(splits: Splits) -> list[Problem]:
    """Those the teacher writes for, else training problems; of either, those with gold where some have it."""
    for problems in (splits.cold_start, splits.train):
        if labelled := [problem for problem in problems if has_gold(problem)]:
            return labelled
    return splits.cold_start or splits.train


def evidence_sample(config: RunConfig, problems: Sequence[Problem], specs: Sequence[RewardSpec]) -> list[Problem]:
    """Problems whose answers can be verified, drawn by the seed, as many of each task as there are or fit."""
    by_task: dict[str, list[Problem]] = {}
    for problem in problems:
        by_task.setdefault(problem.task, []).append(problem)
    for task, own in by_task.items():
        random.Random(f"{config.seed}:evidence:{task}").shuffle(own)
    probed = [problem for own in by_task.values() for problem in own[:NUM_PROBED]]
    found = verdicts(probed, [Completion("", [0], Finish.STOP)] * len(probed), specs)
    verifiable = {problem.task for problem, verdict in zip(probed, found, strict=True) if verdict is not None}
    rounds = itertools.zip_longest(*(by_task[task] for task in sorted(verifiable)))
    one_after_the_other = (problem for round in rounds for problem in round if problem is not None)
    return list(itertools.islice(one_after_the_other, config.teacher.num_evidence_prompts))


def success_counts(
    problems: Sequence[Problem], outputs: Sequence[TeacherOutput], specs: Sequence[RewardSpec]
) -> dict[str, SuccessCount]:
    """Per task the right answers among the problems with a verdict; a problem counts the mean of its texts."""
    rows = [(problem, c) for problem, output in zip(problems, outputs, strict=True) for c in output.completions()]
    found = iter(verdicts([problem for problem, _ in rows], [completion for _, completion in rows], specs))
    means = [_mean([v for v in itertools.islice(found, len(o.texts)) if v is not None]) for o in outputs]
    return count_successes([problem.task for problem in problems], means)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
