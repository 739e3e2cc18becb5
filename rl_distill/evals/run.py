"""The stages of an evaluation: check everything cheap, let every model solve every task, compare, write results.json.

Data, gold answers and tokenizers are checked before the first model is loaded.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from .. import distributed
from ..files import write_atomically
from ..generation import Sampling
from ..reporting import versions
from ..tasks.base import Task, TaskError, TaskOptions, load_task, validate
from ..timing import peak_memory_mib
from ..types import Problem
from . import comparison, decontamination
from .arguments import Settings
from .records import Record, RecordFiles, summarize
from .runner import Student, make_items, solve


@dataclass(frozen=True)
class Loaded:
    """A task with its problems, checked against its own gold answers."""

    task: Task
    problems: list[Problem]


def run(settings: Settings, command: str) -> dict[str, Any]:
    """The results, on every process; the main one has written them to results.json."""
    device = start_processes(settings.num_threads)
    tokenizers = {label: AutoTokenizer.from_pretrained(path) for label, path in settings.models.items()}
    loaded = load_tasks(settings, all(tokenizer.chat_template for tokenizer in tokenizers.values()))
    results = describe(settings, loaded, command, device)
    records: dict[tuple[str, str], list[Record]] = {}
    for label, path in settings.models.items():
        start = time.perf_counter()
        student = Student.of(load_model(path, settings.dtype, device), tokenizers[label])
        for one in loaded:
            records[label, one.task.name] = solve_task(settings, label, path, student, one)
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


def start_processes(num_threads: int | None) -> torch.device:
    """This process's device, the group of all processes started; RuntimeError where it is not as large as launched."""
    state = PartialState(cpu=not torch.cuda.is_available())
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if distributed.world_size() != wanted:
        raise RuntimeError(f"{wanted} processes were launched but the group has {distributed.world_size()}")
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(num_threads or max(1, cores))
    return state.device


def load_tasks(settings: Settings, has_chat_template: bool) -> list[Loaded]:
    """Every task with its problems; the main process grades the gold answers first, and all stop where one fails."""
    found, trouble = [], ""
    try:
        for name in settings.tasks:
            options = TaskOptions(
                settings.data_path(name), settings.protocol, has_chat_template, settings.extra_tests_path
            )
            task = load_task(name, options)
            problems = task.problems()[: settings.limit]
            if distributed.is_main():
                num_gold = validate(task, problems)
                print(
                    f"[{task.name}] {num_gold} problems, {task.protocol}; all gold answers grade as correct", flush=True
                )
            found.append(Loaded(task, problems))
        if len({one.task.name for one in found}) < len(found):
            raise TaskError("two tasks have the same name")
    except TaskError as error:
        trouble = str(error)
    told = [words for words in distributed.gather_list([trouble]) if words]
    if told:
        raise TaskError(told[0])
    return found


def load_model(path: str, dtype: str, device: torch.device) -> Any:
    """A model in evaluation mode on the device; `auto` is the checkpoint's own type, float32 where there is no GPU."""
    dtype = "float32" if dtype == "auto" and device.type == "cpu" else dtype
    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    return model.to(device).eval()


def solve_task(settings: Settings, label: str, path: str, student: Student, one: Loaded) -> list[Record]:
    """The records of one model on one task; tells how far it is on the terminal of the main process."""
    task = one.task
    length = settings.max_new_tokens or task.max_new_tokens
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


def fingerprint(settings: Settings, path: str, task: Task, length: int, problems: list[Problem]) -> dict[str, Any]:
    """Everything that decides a record: records made under another fingerprint are not reused."""
    folder = Path(path)
    weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return {
        "model": str(folder.resolve()) if weights else path,
        "weights": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in weights],
        "protocol": task.protocol,
        "max_new_tokens": length,
        "sampling": settings.sampling(),
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "dtype": settings.dtype,
        "num_problems": len(problems),
        "prompts": decontamination.digest(task.prompt(problem) for problem in problems),
    }


def speed(settings: Settings, student: Student, one: Loaded) -> dict[str, float]:
    """Measured on the main process while the others wait, on the first prompts of the first task."""
    measured = {}
    if distributed.is_main():
        items = make_items(one.task, one.problems[: settings.speed], student.tokenizer, 1)
        length = min(settings.max_new_tokens or one.task.max_new_tokens, 128)
        measured = comparison.measure_speed(student, [item.token_ids for item in items], length, settings.batch_size)
    return next(found for found in distributed.gather_list([measured]) if found)


def describe(settings: Settings, loaded: list[Loaded], command: str, device: torch.device) -> dict[str, Any]:
    """What was evaluated, how and with what: the part of the results that is known before any model runs."""
    tasks = {}
    for task, problems in ((one.task, one.problems) for one in loaded):
        tasks[task.name] = {
            "protocol": task.protocol,
            "extraction": task.extraction,
            "headline": task.metrics[0],
            "stops": list(task.stops),
            "max_new_tokens": settings.max_new_tokens or task.max_new_tokens,
            "gold_answers_correct": len(problems),
            "models": {},
        }
        if settings.training_data:
            texts = decontamination.training_texts(settings.training_data)
            found = decontamination.overlap(problems, texts, settings.ngram)
            tasks[task.name]["decontamination"] = {"training_data": settings.training_data} | found.to_dict()
    return {
        "tasks": tasks,
        "models": {label: {"path": path} for label, path in settings.models.items()},
        "comparisons": {},
        "sampling": settings.sampling() | {"seed": settings.seed, "batch_size": settings.batch_size},
        "limit": settings.limit,
        "num_processes": distributed.world_size(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "dtype": settings.dtype,
        "versions": versions(),
        "git_revision": git_revision(),
        "command": command,
    }


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
            values = {label: entry["models"][label]["metrics"][metric]["value"] for label in settings.models}
            entry["gap_recovered"] = comparison.gap_recovered(values["model"], values["baseline"], values["teacher"])
    for label in others:
        results["comparisons"][label] = comparison.compare_models(results["models"]["model"], results["models"][label])


def corpus_metrics(one: Loaded, records: list[Record]) -> dict[str, Any]:
    """Metrics of the whole, such as corpus BLEU: over the first sample of each problem."""
    if one.task.corpus is None:
        return {}
    first = [record for record in records if record["sample"] == 0]
    return {"corpus": one.task.corpus([one.problems[record["index"]] for record in first], first)}


def git_revision() -> str | None:
    """The commit of this checkout, with `+` where files were changed; None for an installed package."""
    folder = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            ["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


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
    return "\n".join(lines)
