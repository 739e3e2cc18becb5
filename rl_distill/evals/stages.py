"""The stages of an evaluation: check everything cheap, let every model solve every task, compare, write results.json.

Data, gold answers and tokenizers are checked before the first model is loaded.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from .. import distributed
from ..files import write_atomically
from ..generation.sampling import Sampling
from ..models.loading import load_tokenizer
from ..startup.preflight import check_evaluation
from ..tasks.base import Task, TaskError, TaskOptions, load_task, validate
from ..timing import peak_memory_mib
from ..types import Problem
from . import comparison, decontamination
from .best_of import choosing, judging
from .command_line import Settings
from .engine import Student, make_items, solve
from .loading import check_lengths, load_model
from .provenance import describe, describe_task, fingerprint
from .records import Record, RecordFiles, summarize


@dataclass(frozen=True)
class Loaded:
    """A task with its problems, checked against its own gold answers."""

    task: Task
    problems: list[Problem]


def run(settings: Settings, command: str) -> dict[str, Any]:
    """The results, on every process; the main one has written them to results.json.

    TaskError or ConfigError, in one line, where a task or a model cannot be used; distributed.start comes before.
    """
    check_evaluation(settings.models, settings.output_dir)
    tokenizers = {label: load_tokenizer(path) for label, path in settings.models.items()}
    judge = judging.make_judge(settings) if settings.best_of else None
    loaded = load_tasks(settings, all(tokenizer.chat_template for tokenizer in tokenizers.values()))
    results = describe(settings, describe_tasks(settings, loaded), command)
    records: dict[tuple[str, str], list[Record]] = {}
    for label, path in settings.models.items():
        start = time.perf_counter()
        student = Student.of(load_model(path, settings.dtype, distributed.device()), tokenizers[label])
        for one in loaded:
            items = make_items(one.task, one.problems, student.tokenizer, 1)
            check_lengths(student.model, (item.token_ids for item in items), settings.length(one.task))
        for one in loaded:
            records[label, one.task.name] = solve_task(settings, label, path, student, one)
        if label == "model" and judge is not None:
            choose(settings, path, student, loaded, records, results, judge)
        results["models"][label] |= {"size": comparison.size_of(student.model)}
        if settings.speed:
            results["models"][label]["speed"] = speed(settings, student, loaded[0])
        results["models"][label] |= {
            "wall_seconds": round(time.perf_counter() - start, 2),
            "peak_memory_mib": round(max(distributed.gather_list([peak_memory_mib()]))),
        }
        del student
        gc.collect()
    summarize_all(settings, loaded, records, results)
    if distributed.is_main():
        write_atomically(settings.output_dir / "results.json", json.dumps(results, indent=2) + "\n")
    return results


def choose(
    settings: Settings,
    path: str,
    student: Student,
    loaded: list[Loaded],
    records: dict[tuple[str, str], list[Record]],
    results: dict[str, Any],
    judge: judging.Judge,
) -> None:
    """Fills in what choosing among samples gives, task by task. The greedy answers are those of the evaluation."""
    sampling = judging.sampled(settings)
    for one in loaded:
        samples = solve_task(sampling, judging.LABEL, path, student, one)
        values = judge(samples) if distributed.is_main() else []
        values = next(found for found in distributed.gather_list([values]) if found)
        greedy = records["model", one.task.name]
        found = choosing.compare(one.task.metrics[0], greedy, samples, values, settings.seed)
        about = {"num_samples": settings.best_of, "by": settings.by, "temperature": sampling.temperature}
        results["tasks"][one.task.name]["best_of"] = about | found


def load_tasks(settings: Settings, has_chat_template: bool) -> list[Loaded]:
    """Every task with its problems; the main process grades the gold answers first, and all stop where one fails."""
    found, trouble = [], ""
    try:
        for name in settings.tasks:
            found.append(load_one(settings, name, has_chat_template))
        if len({one.task.name for one in found}) < len(found):
            raise TaskError("two tasks have the same name")
    except TaskError as error:
        trouble = str(error)
    told = [words for words in distributed.gather_list([trouble]) if words]
    if told:
        raise TaskError(told[0])
    return found


def load_one(settings: Settings, name: str, has_chat_template: bool) -> Loaded:
    options = TaskOptions(
        settings.data_path(name), settings.protocol(name), has_chat_template, settings.extra_tests_path
    )
    task = load_task(name, options)
    problems = task.problems()[: settings.limit]
    if distributed.is_main():
        num_gold = validate(task, problems)
        print(f"[{task.name}] {num_gold} problems, {task.protocol}; all gold answers grade as correct", flush=True)
    return Loaded(task, problems)


def describe_tasks(settings: Settings, loaded: list[Loaded]) -> dict[str, Any]:
    """Each task's protocol, and how many of its problems the training data holds where there is any to compare."""
    found = {one.task.name: describe_task(one.task, len(one.problems), settings.length(one.task)) for one in loaded}
    if settings.training_data:
        texts = decontamination.training_texts(settings.training_data)
        for one in loaded:
            overlap = decontamination.overlap(one.problems, texts, settings.ngram).to_dict()
            found[one.task.name]["decontamination"] = {"training_data": settings.training_data} | overlap
    return found


def solve_task(settings: Settings, label: str, path: str, student: Student, one: Loaded) -> list[Record]:
    """The records of one model on one task; tells how far it is on the terminal of the main process."""
    task = one.task
    length = settings.length(task)
    files = RecordFiles(settings.output_dir / label, task.name, fingerprint(settings, path, task, length, one.problems))
    if distributed.is_main():
        files.open(settings.start_anew)
    distributed.barrier()
    num_items = len(one.problems) * settings.num_samples
    bar = tqdm(total=num_items, desc=f"{label}: {task.name}", disable=not distributed.is_main(), file=sys.stderr)
    records = solve(
        task,
        one.problems,
        student,
        files,
        sampling=Sampling(length, settings.temperature, settings.top_p),
        num_samples=settings.num_samples,
        batch_size=settings.batch_size,
        seed=settings.seed,
        progress=lambda n: bar.update(n * distributed.world_size()),
    )
    bar.close()
    return records


def speed(settings: Settings, student: Student, one: Loaded) -> dict[str, float]:
    """Measured on the main process while the others wait, on the first prompts of the first task."""
    measured = {}
    if distributed.is_main():
        items = make_items(one.task, one.problems[: settings.speed], student.tokenizer, 1)
        length = min(settings.length(one.task), 128)
        measured = comparison.measure_speed(student, [item.token_ids for item in items], length, settings.batch_size)
    return next(found for found in distributed.gather_list([measured]) if found)


def summarize_all(
    settings: Settings, loaded: list[Loaded], records: dict[tuple[str, str], list[Record]], results: dict[str, Any]
) -> None:
    """Fills in the numbers of each model and the comparisons with the first one."""
    others = [label for label in settings.models if label != "model"]
    for one in loaded:
        entry, metric = results["tasks"][one.task.name], one.task.metrics[0]
        for label in settings.models:
            entry["models"][label] = summarize(one.task, records[label, one.task.name], settings.ks)
            entry["models"][label] |= corpus_metrics(one, records[label, one.task.name])
        ours = records["model", one.task.name]
        entry["comparisons"] = {
            label: comparison.compare_records(metric, ours, records[label, one.task.name], settings.seed)
            for label in others
        }
        if {"baseline", "teacher"} <= set(others):
            baseline, teacher = (records[label, one.task.name] for label in ("baseline", "teacher"))
            entry["gap_recovered"] = comparison.compare_gap(metric, ours, baseline, teacher, settings.seed)
    for label in others:
        results["comparisons"][label] = comparison.compare_models(results["models"]["model"], results["models"][label])


def corpus_metrics(one: Loaded, records: list[Record]) -> dict[str, Any]:
    """Metrics of the whole, such as corpus BLEU: over the first sample of each problem."""
    if one.task.corpus is None:
        return {}
    first = [record for record in records if record["sample"] == 0]
    return {"corpus": one.task.corpus([one.problems[record["index"]] for record in first], first)}


def table(results: dict[str, Any]) -> str:
    """The numbers for a terminal, in Markdown."""
    lines = ["| task | metric | model | value | 95 % interval | n |", "|---|---|---|---|---|---|"]
    for name, entry in results["tasks"].items():
        for label, summary in entry["models"].items():
            for metric, found in summary["metrics"].items():
                value = "-" if found["value"] is None else f"{100 * found['value']:.1f}"
                interval = "-" if found["low"] is None else f"{100 * found['low']:.1f} to {100 * found['high']:.1f}"
                lines.append(
                    f"| {name} ({entry['protocol']}) | {metric} | {label} | {value} | {interval} | {found['n']} |"
                )
            for metric, value in summary.get("corpus", {}).items():
                lines.append(f"| {name} ({entry['protocol']}) | {metric} | {label} | {100 * value:.1f} | - | |")
    chosen = {name: entry["best_of"] for name, entry in results["tasks"].items() if "best_of" in entry}
    return "\n".join(lines) + (f"\n\n{choosing.table(chosen)}" if chosen else "")
