"""Looks for what would spoil a long run, before it starts: tokenizers, weights, teacher, gold answers, lengths, memory.

Every finding says in plain words what is wrong and what to do. Of a run's own settings it asks what the run itself asks
at its start (startup/preflight.py) and then what takes the weights. Nothing is trained.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ..config import ConfigError, DataConfig, RunConfig, teachers_of
from ..data.mixture import groups_of
from ..evals.engine import Student, complete, shown
from ..evals.statistics import quantile
from ..generation.sampling import Sampling
from ..models.loading import auto_class, load_config_of, load_tokenizer
from ..models.tokenizers import num_token_ids, prompt_ids
from ..progress import Stages
from ..startup import preflight
from ..startup.findings import Finding
from ..startup.models import pair_findings, weight_file_findings
from ..startup.rewards import gold_of
from ..tasks.base import SHORT_NAMES, Task, TaskError, TaskOptions, check_answers, load_task
from ..types import Problem
from . import memory
from .speed import machine_findings
from .stages import stage_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SIGNS = {"ok": "ok  ", "warn": "WARN", "bad": "BAD "}
LOW_ENTROPY, HIGH_ENTROPY = 0.003, 2.5  # nats per token; what instruction models show on math and code is 0.1 to 1
CHANCE = 0.9  # entropy above this share of log(vocabulary) on its own answers: a model that was never trained


@dataclass(frozen=True)
class Case:
    """What is examined. `data`: a file or hub id with prompts, or the name of a task; `gpu_gib` None skips the fit."""

    student: str
    teacher: str
    data: str
    data_path: str | None = None
    plan: memory.Plan = field(default_factory=memory.Plan)
    gpu_gib: float | None = None
    num_problems: int = 8
    run: RunConfig | None = None
    """A run's own settings, which then say what its prompts and rewards are."""


def diagnose(case: Case, stages: Stages | None = None) -> list[Finding]:
    """All findings, in the order in which they would stop a run. A check that cannot be made is a finding as well.

    `stages` announces what is being looked at.
    """
    stages = stages or Stages(quiet=True)
    if case.run is None:
        findings, task, problems, tokenizers = files_of(case)
    else:
        with stages("checks", "what the run itself checks at its start"):
            findings, task, problems, tokenizers = files_of_run(case, case.run)
    if task is None:
        return _once(findings) + (memory_findings(case) if tokenizers else [])
    with stages("data", f"gold answers and lengths of {len(problems):,} prompts"):
        findings += gold_findings(task, problems)
        findings += length_findings(task, problems, tokenizers["student"], case)
    texts = [shown(task, problem, tokenizers["student"]) for problem in problems[: case.num_problems]]
    for name, path in {"student": case.student, "teacher": case.teacher}.items():
        if name == "teacher" and case.plan.placement == "remote":
            continue  # behind a server; the path only names its tokenizer
        with stages(name, f"every weight of {path}, and {len(texts)} answers"):
            findings += loaded_findings(name, path, tokenizers[name], texts)
    with stages("machine", "memory, and the speed of this machine"):
        findings += (
            memory_findings(case)
            + stage_findings(case)
            + machine_findings(case.student, case.teacher, case.plan, case.run)
        )
    return _once(findings)


Files = tuple[list[Finding], Task | None, list[Problem], dict[str, Any]]
"""Findings, then the task, its problems and the tokenizers by role: None and empty where they cannot be read."""


def files_of(case: Case) -> Files:
    """Tokenizers and data that the options of the command line name."""
    paths = {"student": case.student, "teacher": case.teacher}
    tokenizers = {name: load_tokenizer(path, who=name) for name, path in paths.items()}
    findings = tokenizer_findings(tokenizers["student"], tokenizers["teacher"])
    findings += vocabulary_findings(
        tokenizers, {n: load_config_of(p, who=n).get_text_config() for n, p in paths.items()}
    )
    try:
        task, problems = problems_of(case, tokenizers["student"])
    except (TaskError, ConfigError) as error:
        bad = Finding("bad", "data", str(error), "give --data a file, a hub id or the name of a task")
        return [*findings, bad], None, [], tokenizers
    return findings, task, problems, tokenizers


def files_of_run(case: Case, config: RunConfig) -> Files:
    """The run's own checks, and its training prompts as the run reads them."""
    findings, looked = preflight.examine(config)
    if looked is None:
        return findings, None, [], {}
    teacher = load_tokenizer(case.teacher, who="teacher")
    preflight.take_template(teacher, teachers_of(config))
    findings += tokenizer_findings(looked.tokenizer, teacher)
    problems = in_turn(looked.splits.train)
    return findings, data_task(problems), problems, {"student": looked.tokenizer, "teacher": teacher}


def in_turn(problems: Sequence[Problem]) -> list[Problem]:
    """One problem of each source after the other, so that the first of them are of every entry of a mixture."""
    groups = groups_of(problems).values()
    return [problems[row] for rows in itertools.zip_longest(*groups) for row in rows if row is not None]


def loaded_findings(name: str, path: str, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Finding]:
    torn = weight_file_findings(name, path)
    if torn:
        return torn
    findings, model = weight_findings(name, path)
    return findings + entropy_findings(name, Student.of(model, tokenizer), texts)


def _once(findings: Sequence[Finding]) -> list[Finding]:
    """Without repetitions: the run's own checks and the doctor's may find the same."""
    return list({(finding.what, finding.detail): finding for finding in findings}.values())


def tokenizer_findings(student: Any, teacher: Any) -> list[Finding]:
    """Same token-to-id map and EOS; same chat template; EOS and padding that can be told apart."""
    try:
        findings = pair_findings(student, teacher, "teacher")
        findings.append(Finding("ok", "tokenizers", f"one map of {len(student):,} tokens, EOS {student.eos_token!r}"))
    except ConfigError as error:
        findings = [Finding("bad", "tokenizers", str(error), "take student and teacher from one model family")]
    if student.chat_template != teacher.chat_template:
        lacking = [n for n, t in (("student", student), ("teacher", teacher)) if not t.chat_template]
        words = f"the {' and the '.join(lacking)} has none" if lacking else "student and teacher have different ones"
        findings.append(
            Finding(
                "warn",
                "chat template",
                words,
                "the student's is used for both; copy the teacher's if it was tuned on it",
            )
        )
    if student.pad_token_id is not None and student.pad_token_id == student.eos_token_id:
        findings.append(Finding("ok", "padding", "padding is EOS; masks tell them apart"))
    return findings


def vocabulary_findings(tokenizers: dict[str, Any], configs: dict[str, Any]) -> list[Finding]:
    """Embedding rows against token ids: more rows are padding and harmless, fewer would crash in mid-run."""
    findings = []
    for name, config in configs.items():
        highest = num_token_ids(tokenizers[name]) - 1
        if highest >= config.vocab_size:
            words = f"the {name} has {config.vocab_size:,} embedding rows but its tokenizer uses id {highest:,}"
            do = "call resize_token_embeddings and save the model again, or use its own tokenizer"
            findings.append(Finding("bad", "vocabulary", words, do))
    sizes = {name: config.vocab_size for name, config in configs.items()}
    if len(set(sizes.values())) > 1 and not findings:
        words = f"{sizes['student']:,} rows in the student, {sizes['teacher']:,} in the teacher"
        findings.append(
            Finding("ok", "vocabulary", f"{words}: both are cut to the tokenizer's {len(tokenizers['student']):,}")
        )
    return findings


def problems_of(case: Case, tokenizer: PreTrainedTokenizerBase) -> tuple[Task, list[Problem]]:
    """The problems that would be trained on, and the task that grades them."""
    if case.data in SHORT_NAMES or (":" in case.data and ".py" in case.data):
        task = load_task(case.data, TaskOptions(case.data_path, has_chat_template=bool(tokenizer.chat_template)))
        return task, task.problems()
    from ..data.loading import load_problems

    problems = load_problems(DataConfig(train=case.data), case.data, "train", tokenizer)
    return data_task(problems), problems


def data_task(problems: list[Problem]) -> Task:
    """Prompts as they are, of rows that are no benchmark's."""
    return Task("data", lambda: problems, grade=lambda p, t: [], protocol="base")


def gold_findings(task: Task, problems: Sequence[Problem]) -> list[Finding]:
    """Every gold answer must be worth 1: one that is not teaches the student to avoid the right answer."""
    gold = gold_of if task.name == "data" else task.gold
    try:
        golds = [(problem, text) for problem in problems if (text := gold(problem))]
        known, texts = [problem for problem, _ in golds], [text for _, text in golds]
        if not known:
            do = "add an `answer` column (math), or tests with a `canonical_solution`, `solutions` or `code` (code)"
            return [Finding("warn", "gold answers", "the data has none, so no gold answer can be verified", do)]
        scores = check_answers(known, texts) if task.name == "data" else _headline(task, known, texts)
    except ValueError as error:  # a column named like a benchmark's that holds something else
        return [Finding("bad", "gold answers", str(error), "mend the column, or give it another name")]
    wrong = [problem for problem, score in zip(known, scores, strict=True) if score != 1.0]
    if not wrong:
        return [Finding("ok", "gold answers", f"all {len(known):,} grade as correct")]
    first = f"the first: {wrong[0].key} {gold(wrong[0])!r:.120}"
    words = f"{len(wrong):,} of {len(known):,} do not grade as correct; {first}"
    return [Finding("bad", "gold answers", words, "mend or drop these rows, or write a reward that understands them")]


def _headline(task: Task, problems: Sequence[Problem], texts: Sequence[str]) -> list[float | None]:
    return [verdict.scores[task.metrics[0]] for verdict in task.grade(problems, texts)]


def length_findings(
    task: Task, problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase, case: Case
) -> list[Finding]:
    """Prompt lengths against the limit of the plan and the model's positions."""
    texts = [shown(task, problem, tokenizer) for problem in problems]
    lengths = sorted(len(ids) for ids in prompt_ids(tokenizer, texts))
    words = (
        f"median {quantile(lengths, 0.5):.0f}, 99 % below {quantile(lengths, 0.99):.0f}, longest {lengths[-1]} tokens"
    )
    findings = []
    limit = case.plan.prompt_length
    over = sum(length > limit for length in lengths)
    if over:
        do = f"raise the limit to {lengths[-1]} or let data.max_prompt_length drop them"
        findings.append(Finding("warn", "prompt lengths", f"{words}; {over} exceed the planned {limit}", do))
    positions = getattr(load_config_of(case.student, who="student").get_text_config(), "max_position_embeddings", None)
    needed = lengths[-1] + case.plan.completion_length
    if positions is not None and needed > positions:
        total = f"the longest prompt and {case.plan.completion_length} new tokens make {needed}"
        do = "lower generation.max_completion_length or data.max_prompt_length"
        findings.append(Finding("bad", "positions", f"{total}, the student has {positions} positions", do))
    return findings or [Finding("ok", "prompt lengths", words)]


def weight_findings(name: str, path: str) -> tuple[list[Finding], Any]:
    """Whether every weight came from the checkpoint and is finite; and the model."""
    loaded: Any = auto_class(load_config_of(path, who=name)).from_pretrained(
        path, dtype="float32", output_loading_info=True
    )
    model, info = loaded
    model.eval()
    what = f"{name}'s weights"
    missing = sorted([*info.get("missing_keys", ()), *(str(key) for key in info.get("mismatched_keys", ()))])
    if missing:
        words = f"{len(missing)} were not in the checkpoint and are random, such as {missing[0]}"
        return [Finding("bad", what, words, "check that the folder holds this very architecture")], model
    broken = next((n for n, p in model.named_parameters() if not bool(torch.isfinite(p).all())), None)
    if broken is not None:
        return [Finding("bad", what, f"{broken} holds NaN or infinity", "take an earlier checkpoint")], model
    count = sum(1 for _ in model.parameters())
    return [Finding("ok", what, f"all {count} tensors come from the checkpoint and are finite")], model


def entropy_findings(name: str, model: Student, texts: Sequence[str], num_tokens: int = 32) -> list[Finding]:
    """Entropy along the model's own greedy answers: near log(vocabulary) it was never trained; the teacher's must be
    neither so low that it says no more than one text would, nor so high that it guesses.
    """
    entropy, what = own_entropy(model, texts, num_tokens), f"{name}'s entropy"
    words = f"{entropy:.3f} nats per token on its own answers"
    most = math.log(len(model.tokenizer))
    if entropy > CHANCE * most:
        do = "its weights look untrained: check the folder, and that the checkpoint was really written"
        return [Finding("bad", what, f"{words}, pure chance is {most:.2f}", do)]
    if name == "teacher" and entropy < LOW_ENTROPY:
        do = "the KL anchor then only repeats its text: raise generation.temperature, or use a less overfitted teacher"
        return [Finding("warn", what, f"{words}: very sure of every token", do)]
    if name == "teacher" and entropy > min(HIGH_ENTROPY, most / 2):
        do = "check its chat template and the prompt's wording, or use a better teacher; following it would teach noise"
        return [Finding("warn", what, f"{words}: it does not know what to say to these prompts", do)]
    return [Finding("ok", what, words)]


@torch.inference_mode()
def own_entropy(teacher: Student, texts: Sequence[str], num_tokens: int) -> float:
    """Mean entropy in nats of the distributions that a greedy answer was taken from."""
    total, count = 0.0, 0
    for ids in prompt_ids(teacher.tokenizer, texts):
        answer = complete(teacher, [ids], Sampling(num_tokens, temperature=0.0))[0].token_ids
        logits = teacher.model(torch.tensor([ids + answer])).logits[
            0, len(ids) - 1 : -1, : num_token_ids(teacher.tokenizer)
        ]
        total += torch.distributions.Categorical(logits=logits.float()).entropy().sum().item()
        count += len(answer)
    return total / max(1, count)


def memory_findings(case: Case) -> list[Finding]:
    """Expected memory of each kind of GPU under the plan, and what to change where it does not fit."""
    student, teacher = (memory.Shape.of(load_config_of(path)) for path in (case.student, case.teacher))
    gpus: dict[str, Callable[[], dict[str, float]]] = {
        "student's GPU": lambda: memory.student_gpu(student, teacher, case.plan)
    }
    if case.plan.placement == "dedicated":
        gpus["teacher's GPU"] = lambda: memory.teacher_gpu(teacher, case.plan)
    findings = []
    for name, parts_of in gpus.items():
        parts = parts_of()
        peak = parts.pop("peak")
        largest = sorted(parts.items(), key=lambda item: -item[1])[:3]
        words = (
            f"about {peak / memory.GIB:.1f} GiB (" + ", ".join(f"{n} {s / memory.GIB:.1f}" for n, s in largest) + ")"
        )
        do = "" if case.gpu_gib is None else memory.advice(peak, case.gpu_gib * memory.GIB, case.plan)
        findings.append(Finding("bad" if do else "ok", f"memory of a {name}", words, do))
    return findings


def stage_findings(case: Case) -> list[Finding]:
    """What the stages before PPO need beside the models, or the layer of a map that is not there."""
    if case.run is None or case.plan.placement == "remote":
        return []
    student, teacher = (load_config_of(path) for path in (case.student, case.teacher))
    stages = {"warm_up": case.run.warm_up, "distill": case.run.distill}
    try:
        words = [stage_words(case.run, n, s, student, teacher) for n, s in stages.items() if s is not None]
    except ValueError as error:
        return [Finding("bad", "distill.inner", str(error), "name layers that both models have")]
    return [Finding("ok", "memory of a stage", text, "") for text in words if text]


def show(findings: Sequence[Finding]) -> str:
    """The findings for a terminal, a line each and one for the cure."""
    lines = []
    for finding in findings:
        lines.append(f"{SIGNS[finding.level]}  {finding.what}: {finding.detail}")
        if finding.do:
            lines.append(f"      do: {finding.do}")
    bad, warn = (sum(f.level == level for f in findings) for level in ("bad", "warn"))
    lines.append(f"\n{bad} to mend, {warn} to think about." if bad or warn else "\nNothing stands in the way.")
    return "\n".join(lines)
