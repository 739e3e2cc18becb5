"""Reward functions against the data before anything is trained: the columns they need, and gold answers scored once.

It may assume problems of the training split. It starts the graders that training uses.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reward_models import VERIFYING_REWARDS, BlendedScores, RewardBlend, RewardError, RewardSpec
from reward_models.calling import BoundReward
from reward_models.code_problems import check_of
from reward_models.math_answers import unparsed_golds

from ..data.reward_inputs import reward_inputs
from ..tasks.programs import first_solution
from ..types import Completion, Finish, Problem
from .findings import Finding

OFFERED = (
    "prompts",
    "completions",
    "completion_ids",
    "trainer_state",
    "log_extra",
    "log_metric",
    "task",
    "finished",
    "rendered_prompt",
    "teacher_logprobs",
    "teacher_entropy",
)
"""Arguments that every rollout has, whatever the data."""
TEACHER_COLUMNS = ("teacher_logprobs", "teacher_entropy")
NUM_SCORED = 8
Encode = Callable[[str], list[int]]


def reward_findings(
    specs: Sequence[RewardSpec], sources: Mapping[str, Sequence[Problem]], encode: Encode, *, has_teacher_texts: bool
) -> list[Finding]:
    """Columns that are missing from all sources; where none is, source by source what is said of gold answers, and
    gold answers of no use. The names of the sources begin what is said of them.
    """
    every = [problem for problems in sources.values() for problem in problems]
    findings = column_findings(specs, every, has_teacher_texts=has_teacher_texts)
    if findings:
        return findings
    for name, problems in sources.items():
        found = unreadable_findings(specs, problems)
        found += gold_findings(specs, problems, encode, has_teacher_texts=has_teacher_texts)
        findings += [replace(finding, detail=name + finding.detail) for finding in found]
    return findings


def column_findings(
    specs: Sequence[RewardSpec], problems: Sequence[Problem], *, has_teacher_texts: bool
) -> list[Finding]:
    """A finding for each column that a function cannot do without and no row has."""
    columns = sorted({name for problem in problems for name, value in problem.columns.items() if value is not None})
    offered = {*OFFERED, *columns, *(["teacher_output"] if has_teacher_texts else [])}
    findings = []
    for spec in specs:
        for name in needed_columns(spec):
            if name in offered:
                continue
            do = f"the data has {', '.join(columns) or 'no column beside the prompt'}: rename one or leave it out"
            if name == "teacher_output":
                do = "set teacher.num_outputs_per_prompt to 1 or more"
            findings.append(Finding("bad", "rewards", f"{spec.label} needs the column {name!r}", do))
    return findings


def needed_columns(spec: RewardSpec) -> list[str]:
    """The arguments of the function that have no default and no value in its kwargs."""
    bound = BoundReward(spec)
    return [
        parameter.name
        for parameter in inspect.signature(bound.function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and parameter.name not in bound.extra
    ]


def gold_of(problem: Problem) -> str | None:
    """A text that must be right: the solution where there is one, else the bare answer."""
    is_code = check_of(problem.columns) is not None
    for name in ("canonical_solution", "solution", *(("solutions", "code", "completion") if is_code else ())):
        if solution := first_solution(problem.columns.get(name)):
            return str(solution)
    if problem.solution:
        return problem.solution
    answer = problem.columns.get("answer")
    return None if answer is None or is_code else str(answer)


def unreadable_findings(specs: Sequence[RewardSpec], problems: Sequence[Problem]) -> list[Finding]:
    """A finding where the gold answer of math problems cannot be read: no completion would ever be right."""
    wanted = {spec.fn for spec in specs} & {"math_answer", "task_check"}
    if not wanted:
        return []
    maths = [
        problem
        for problem in problems
        if problem.columns.get("answer") is not None and ("math_answer" in wanted or check_of(problem.columns) is None)
    ]
    unreadable = unparsed_golds([problem.columns["answer"] for problem in maths])
    if not unreadable:
        return []
    first = maths[unreadable[0]]
    words = f"{len(unreadable)} of {len(maths)} gold answers cannot be read as an answer"
    words += f"; the first, of {first.key!r}: {str(first.columns['answer'])!r:.80}"
    do = "no completion can match them: mend or drop these rows, or mark the answer in them by \\boxed{} or ####"
    return [Finding("bad" if len(unreadable) == len(maths) else "warn", "rewards", words, do)]


def has_gold(problem: Problem) -> bool:
    """Whether an answer to the problem can be checked: it has tests, or a gold answer."""
    return check_of(problem.columns) is not None or problem.columns.get("answer") is not None


def gold_findings(
    specs: Sequence[RewardSpec], problems: Sequence[Problem], encode: Encode, *, has_teacher_texts: bool
) -> list[Finding]:
    """What one batch of gold answers scores: an error, nothing at all, and less than 1 where answers are verified."""
    known = [problem for problem in problems if gold_of(problem) is not None][:NUM_SCORED]
    sample = known or list(problems[:NUM_SCORED])
    try:
        texts = [gold_of(problem) or "" for problem in sample]
        scores = score_texts(specs, sample, texts, encode, has_teacher_texts=has_teacher_texts)
    except (RewardError, ValueError) as error:
        do = "mend the function or the data"
        return [Finding("bad", "rewards", f"a first batch of {len(sample)} answers fails: {error}", do)]
    counts = [spec for spec in specs if spec.weight_at(1.0) or spec.weight_at(0.0)]
    if counts and all(score is None for name in (s.label for s in counts) for score in scores.parts[name]):
        words = f"none of {', '.join(spec.label for spec in counts)} scores any of the first {len(sample)} problems"
        do = "give the data an `answer` column, or `test` and `entry_point`, or take a reward that needs neither"
        return [Finding("bad", "rewards", words, do)]
    return _verdicts(scores, sample) if known else []


def _verdicts(scores: BlendedScores, sample: Sequence[Problem]) -> list[Finding]:
    findings = []
    for name in VERIFYING_REWARDS:
        graded = [(p, s) for p, s in zip(sample, scores.parts.get(name, []), strict=False) if s is not None]
        wrong = [problem for problem, score in graded if score != 1.0]
        if wrong:
            words = f"{name} takes {len(wrong)} of {len(graded)} gold answers for wrong"
            words += f"; the first: {gold_of(wrong[0])!r:.80}"
            level: Any = "bad" if len(wrong) == len(graded) else "warn"
            findings.append(Finding(level, "rewards", words, "mend these rows, or take the reward that fits them"))
    return findings


def score_texts(
    specs: Sequence[RewardSpec],
    problems: Sequence[Problem],
    texts: Sequence[str],
    encode: Encode,
    *,
    has_teacher_texts: bool,
) -> BlendedScores:
    """The scores of one text per problem, as a rollout would get them; RewardError where a function fails."""
    ids = [encode(text) or [0] for text in texts]
    completions = [Completion(text, row, Finish.STOP) for text, row in zip(texts, ids, strict=True)]
    inputs = reward_inputs(problems, completions)
    if has_teacher_texts:
        inputs["columns"]["teacher_output"] = [[text] for text in texts]
    with RewardBlend([replace(spec, on_error="raise") for spec in specs]) as blend:
        numbers = [[-1.0] * len(row) for row in ids], [[1.0] * len(row) for row in ids]
        return blend.score(**inputs, teacher_columns=dict(zip(TEACHER_COLUMNS, numbers, strict=True)))
