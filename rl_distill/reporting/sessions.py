"""What a run has spent over all its sessions, where it was interrupted and resumed, and the commands of each.

Kept in sessions.json, which only the main process writes: at every checkpoint, every evaluation and at the end. What a
killed session spent after its last entry is not counted.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .. import distributed
from ..files import write_atomically
from ..progress import Stages

FILE = "sessions.json"
RESUME = "--resume_from_checkpoint"


class Sessions(TrainerCallback):
    """The seconds of this session's stages, appended to those of the sessions it resumes, if any."""

    def __init__(self, folder: Path, stages: Stages, command: str, *, resumed: bool) -> None:
        self.path, self.stages, self.command = folder / FILE, stages, command
        self.earlier = read_sessions(self.path) if resumed else []

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.write()

    on_evaluate = on_save

    def write(self) -> None:
        if distributed.is_main():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(self.all(), indent=1) + "\n")

    def all(self) -> list[dict[str, Any]]:
        """Command, wall and CPU seconds by stage of every session, this one last and up to now."""
        wall, cpu = self.stages.so_far()
        return [*self.earlier, {"command": self.command, "wall_seconds": wall, "cpu_seconds": cpu}]

    def summary(self) -> dict[str, Any]:
        """What results.json says of them: seconds summed over sessions, and the command that makes the whole run."""
        sessions = self.all()
        return {
            "wall_seconds": total([session["wall_seconds"] for session in sessions]),
            "cpu_seconds": total([session["cpu_seconds"] for session in sessions]),
            "num_sessions": len(sessions),
            "command": reproduce([session["command"] for session in sessions]),
        }


def read_sessions(path: Path) -> list[dict[str, Any]]:
    """The sessions of the file; none where it is absent or damaged."""
    try:
        found = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return []
    return found if isinstance(found, list) else []


def total(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """The sum by name, names in the order in which they first appear."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: round(sum(part.get(name, 0.0) for part in parts), 3) for name in names}


def reproduce(commands: Sequence[str]) -> str:
    """The first session's command without resuming; others with other settings follow as a comment of the shell."""
    different = list(dict.fromkeys(without_resume(command) for command in commands))
    first, rest = different[0], different[1:]
    return first if not rest else f"{first}   # then resumed with other settings: {'; '.join(rest)}"


def without_resume(command: str) -> str:
    """The command without --resume_from_checkpoint and its value."""
    words, kept = shlex.split(command), []
    while words:
        word = words.pop(0)
        if word == RESUME:
            if words and not words[0].startswith("--"):
                words.pop(0)
        elif not word.startswith(f"{RESUME}="):
            kept.append(word)
    return shlex.join(kept)
