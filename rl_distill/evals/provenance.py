"""What was evaluated, with what and how: the part of results.json that is no number, and what decides a record.

It may assume tasks with their problems; no model is needed. It will not measure anything.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from .. import distributed
from ..provenance import git_revision, versions
from ..tasks.base import Task
from ..types import Problem
from .command_line import Settings


def describe(settings: Settings, tasks: dict[str, Any], command: str) -> dict[str, Any]:
    """results.json as it is known before any model runs; `tasks` from `describe_task`."""
    return {
        "tasks": tasks,
        "models": {label: {"path": path} for label, path in settings.models.items()},
        "comparisons": {},
        "sampling": settings.sampling() | {"seed": settings.seed, "batch_size": settings.batch_size},
        "limit": settings.limit,
        "num_processes": distributed.world_size(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "dtype": settings.dtype,
        "versions": versions(),
        "git_revision": git_revision(),
        "command": command,
    }


def describe_task(task: Task, num_problems: int, length: int) -> dict[str, Any]:
    """One task's protocol; its gold answers have been graded."""
    return {
        "protocol": task.protocol,
        "extraction": task.extraction,
        "headline": task.metrics[0],
        "stops": list(task.stops),
        "max_new_tokens": length,
        "gold_answers_correct": num_problems,
        "models": {},
    }


def fingerprint(settings: Settings, path: str, task: Task, length: int, problems: Sequence[Problem]) -> dict[str, Any]:
    """Everything that decides a record: records made under another fingerprint are not reused."""
    folder = Path(path)
    weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    return {
        "model": str(folder.resolve()) if weights else path,
        "weights": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in weights],
        "protocol": task.protocol,
        "stops": list(task.stops),
        "max_new_tokens": length,
        "sampling": settings.sampling(),
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "dtype": settings.dtype,
        "num_problems": len(problems),
        "problems": digest(_text_of(task, problem) for problem in problems),
        "graders": digest(path.read_text() for path in grader_files(task)),
    }


def _text_of(task: Task, problem: Problem) -> str:
    return json.dumps([task.prompt(problem), problem.solution, problem.columns], sort_keys=True, default=str)


def grader_files(task: Task) -> list[Path]:
    """The source files that decide verdicts: the one that defines the task's grader, the graders and the sandbox."""
    own = inspect.getsourcefile(inspect.unwrap(task.grade)) if inspect.isroutine(task.grade) else None
    folders = [Path(str(spec.origin)).parent for spec in map(find_spec, ("reward_models", "sandboxes")) if spec]
    return [*([Path(own)] if own else []), *(path for folder in folders for path in sorted(folder.glob("*.py")))]


def digest(texts: Iterable[str]) -> str:
    """A short hash of texts in order."""
    found = hashlib.sha256()
    for text in texts:
        found.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return found.hexdigest()[:16]
