"""Checkpoints that are whole or not at all, and the extra state of a run that Trainer does not know.

Trainer writes a checkpoint folder file by file. A marker with the size of every file is written last, after all of them
have reached the disk; a folder without a true marker is never resumed from.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .. import distributed
from ..config import ConfigError
from ..files import write_atomically

MARKER = "complete.json"
STATE = "run_state.json"
SET_ASIDE = "previous"


class Stateful(Protocol):
    """A part of a run that changes while it trains. Its state is JSON, or tensors by name."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class StatefulParts:
    """Every part of a run that Trainer does not save, by name: what a checkpoint stores and a resumed run restores."""

    def __init__(self, **parts: Stateful) -> None:
        self.parts = parts

    def save(self, folder: Path) -> None:
        """JSON states together in one file, each part with tensors in a file of its name."""
        states = {name: part.state_dict() for name, part in self.parts.items()}
        with_tensors = {name for name, state in states.items() if holds_tensors(state)}
        for name in with_tensors:
            torch.save(states.pop(name), folder / f"{name}.pt")
        (folder / STATE).write_text(json.dumps(states))

    def load(self, folder: Path) -> None:
        """Restores all parts. KeyError or FileNotFoundError where the checkpoint lacks one of them."""
        states = json.loads((folder / STATE).read_text())
        for name, part in self.parts.items():
            path = folder / f"{name}.pt"
            part.load_state_dict(torch.load(path, map_location="cpu") if path.is_file() else states[name])


def holds_tensors(state: Mapping[str, Any]) -> bool:
    return any(isinstance(value, torch.Tensor) for value in state.values())


class CompleteCheckpoints(TrainerCallback):
    """After each save: the run's own state, everything flushed to disk, then the marker; then old checkpoints go.

    The newest `keep_last` stay, and the best by validation where `keep_best` asks for it.
    """

    def __init__(self, parts: StatefulParts, keep_last: int, *, keep_best: bool) -> None:
        self.parts, self.keep_last, self.keep_best = parts, keep_last, keep_best

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        distributed.barrier()  # every process has written its random state
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            self.parts.save(folder)
            complete(folder)
            best = state.best_model_checkpoint if self.keep_best else None
            remove_old(folder.parent, self.keep_last, None if best is None else Path(best))
        distributed.barrier()


def remove_old(output_dir: Path, keep_last: int, best: Path | None) -> None:
    """Removes all checkpoints but the newest `keep_last` and `best`."""
    for folder in folders(output_dir)[:-keep_last]:
        if best is None or folder.name != best.name:
            shutil.rmtree(folder)


def complete(folder: Path) -> None:
    """Flushes every file of the folder and writes its marker."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in files}
    write_atomically(folder / MARKER, json.dumps(sizes, indent=1))
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def is_complete(folder: Path) -> bool:
    """True where the marker is there and every file has the size it says."""
    try:
        sizes = json.loads((folder / MARKER).read_text())
    except (OSError, json.JSONDecodeError):
        return False
    return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())


def find(output_dir: Path, wanted: str | None) -> Path | None:
    """The checkpoint to resume from: None if none is wanted, or if `latest` finds none yet (the run starts anew).

    Raises ConfigError where a named folder is missing or half-written.
    """
    if wanted is None:
        return None
    if not distributed.is_main():
        return _as_path(distributed.from_main(None))
    found = _find(output_dir, wanted)
    distributed.from_main(None if found is None else str(found))
    return found


def _as_path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _find(output_dir: Path, wanted: str) -> Path | None:
    if wanted == "latest":
        return next((folder for folder in reversed(folders(output_dir)) if is_complete(folder)), None)
    folder = next((path for path in (Path(wanted), output_dir / wanted) if path.is_dir()), None)
    if folder is None:
        there = ", ".join(path.name for path in folders(output_dir)) or "no checkpoint"
        raise ConfigError(f"resume_from_checkpoint: {wanted!r} does not exist; {str(output_dir)!r} has {there}")
    if not is_complete(folder):
        raise ConfigError(
            f"resume_from_checkpoint: {folder} is not a complete checkpoint; `--resume_from_checkpoint latest` picks "
            "the newest complete one"
        )
    return folder


def folders(output_dir: Path) -> list[Path]:
    """The checkpoint folders of a run, complete or not, the oldest first."""
    numbered = [path for path in output_dir.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(numbered, key=lambda path: int(path.name.rpartition("-")[2]))


def tidy(output_dir: Path, resume: Path | None) -> None:
    """Clears the way before training: what a later `latest` could take for this run's, and is not, leaves.

    A resumed run drops half-written checkpoints and those after the one it resumes from. A run that starts anew moves
    the checkpoints of an earlier one to the folder `previous`, in place of what was there.
    """
    if distributed.is_main():
        present = folders(output_dir)
        if resume is None and present:
            aside = output_dir / SET_ASIDE
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            for folder in present:
                folder.rename(aside / folder.name)
        elif resume is not None and resume in present:
            for folder in present:
                if not is_complete(folder) or present.index(folder) > present.index(resume):
                    shutil.rmtree(folder)
    distributed.barrier()


def load_weights(model: Any, folder: Path) -> None:
    """Puts a checkpoint's weights into the model; parameters it does not hold (tied or frozen ones) stay as they are.

    Raises ConfigError without weights and where the checkpoint is another model's.
    """
    from safetensors.torch import load_file

    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ConfigError(f"{folder} holds no model*.safetensors")
    state = {name: tensor for file in files for name, tensor in load_file(file).items()}
    unknown = distributed.load_weights(model, state)
    if unknown:
        raise ConfigError(f"{folder} is of another model: it holds {unknown[0]}")


def read_state(folder: Path) -> dict[str, Any]:
    """The JSON states of a checkpoint's parts, by their names."""
    return json.loads((folder / STATE).read_text())
