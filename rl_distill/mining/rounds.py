"""Rounds of training, each an ordinary PPO run from the last round's student with that student's errors as a pool.

What has been done is read from the folder: a step whose file is there is not done again, so the same command goes on
after a crash at any point. Each run is a process of its own, which ends with this one.
"""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..config import RunConfig
from ..errors import UserError
from ..files import finite, read_jsonl, write_atomically
from . import decisions, round_data, round_report

CONFIG, ANSWERS, POOL, DONE = "config.yaml", "answers.jsonl", "pool.jsonl", "round.json"
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Options:
    """What `rl-distill rounds` takes beside the settings of a run; rounds_command.py says what each is."""

    rounds: int = 3
    share: float = 0.2
    patience: int = 2
    mining_share: float = 0.2
    mining_size: int = 500
    max_repeats: float = 4.0
    size: int = 1000
    per_user: int = 5
    feedback_share: float = 0.25
    ngram: int = 13
    augment: tuple[str, ...] = ()
    feedback: tuple[str, ...] = ()
    launcher: tuple[str, ...] = ()


@dataclass
class Rounds:
    """All rounds under one folder. `base`: entries of data.mixture without the pool; `config`: of every round."""

    folder: Path
    config: RunConfig
    base: list[dict[str, Any]]
    parts: round_data.Parts
    options: Options
    done: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> dict[str, Any]:
        """Trains until all rounds are done or it got worse for `patience` rounds; the content of rounds.json."""
        standing, stopped = decisions.Standing(), ""
        grades: dict[int, decisions.Grades] = {}
        for number in range(1, self.options.rounds + 1):
            self.train(number, standing.current)
            before, grades[number] = (grades_of(self.place(number), stage) for stage in ("before", "after"))
            grades.setdefault(0, before)
            reached = decisions.after_round(standing, number, grades)
            self.mine(number)
            self.done.append(self.record(number, standing, reached, before, grades))
            standing = reached
            worse, patience = standing.worse_in_a_row, self.options.patience
            stopped = f"worse than the best for {worse} rounds in a row" if standing.stops(patience) else ""
            found = self.write(standing, stopped)
            print(round_report.markdown(found), flush=True)
            if stopped:
                break
        return found

    def place(self, number: int) -> Path:
        return self.folder / f"round_{number}"

    def student(self, number: int) -> str:
        """The student after a round; of round 0 the one that the settings name."""
        return str(self.config.student.model) if number == 0 else str(self.place(number) / "student")

    def train(self, number: int, start: int) -> None:
        """An ordinary run, resumed from its newest checkpoint; nothing where its results are there already."""
        folder = self.place(number)
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "results.json").is_file():
            return
        settings = self.settings(number, start)
        write_atomically(folder / CONFIG, yaml.safe_dump(settings, sort_keys=False))
        print(f"round {number} of {self.options.rounds}: PPO from {settings['student']['model']}", flush=True)
        words = ["rl_distill.cli", "ppo", *self.options.launcher, "--config", str(folder / CONFIG)]
        child([*words, "--resume_from_checkpoint", "latest"])
        if not (folder / "results.json").is_file():
            raise UserError(f"round {number} was interrupted; its checkpoint is kept: the same command goes on")

    def settings(self, number: int, start: int) -> dict[str, Any]:
        """The config of a round's run: the student it starts from, the pool of the round before, a seed of its own."""
        found = self.config.to_dict()
        found["output_dir"], found["seed"] = str(self.place(number)), self.config.seed + number - 1
        found["student"]["model"] = self.student(start)
        if number > 1:
            found["warm_up"] = found["distill"] = None  # stages before PPO belong to the first round
        found["log_completions_every"] = found["log_completions_every"] or 1
        found["data"] |= {"train": None, "mixture": self.mixture(number, start), "mixture_preset": None}
        return found

    def mixture(self, number: int, start: int) -> list[dict[str, Any]]:
        share = self.pool_share(number, start)
        return decisions.with_pool(self.base, str(self.pool(number, start)), self.config.data.task, share)

    def pool(self, number: int, start: int) -> Path:
        """What the student that a round goes on from got wrong; for the very first student the last round's errors."""
        return self.place(start or number - 1) / POOL

    def pool_share(self, number: int, start: int) -> float:
        """Of the pool that a round trains on; 0 in the first."""
        rows = len(read_jsonl(self.pool(number, start)))
        ppo, options = self.config.ppo, self.options
        prompts = ppo.num_steps * ppo.batch_size // ppo.group_size
        return decisions.pool_share(options.share, options.max_repeats, rows, prompts)

    def mine(self, number: int) -> None:
        """The pool of what the round's student got wrong: in rollouts, on the mining part, in users' feedback."""
        folder, options, seed = self.place(number), self.options, self.config.seed
        if not (folder / ANSWERS).is_file():
            asked = round_data.asked_in(self.parts, folder / "asked.jsonl", number, options.mining_size, seed)
            given = {"config": folder / CONFIG, "student": self.student(number), "problems": asked}
            words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
            child(["rl_distill.mining.answering", *words, "--out", str(folder / ANSWERS)])
        if not (folder / POOL).is_file():
            answers = round_data.rollouts_of(folder)
            for path in (folder / ANSWERS, *map(Path, options.feedback)):
                answers += round_data.answers_in(path)
            round_data.make_pool(self.parts, answers, folder / POOL, options, seed)

    def record(
        self,
        number: int,
        before: decisions.Standing,
        after: decisions.Standing,
        start: decisions.Grades,
        grades: dict[int, decisions.Grades],
    ) -> dict[str, Any]:
        """A round's entry in rounds.json."""
        folder = self.place(number)
        results = json.loads((folder / "results.json").read_text())
        asked = read_jsonl(folder / ANSWERS)
        return {
            "round": number,
            "goes_on_from": before.current,
            "student": self.student(number),
            "accuracy": {"before": results["student_before"], "after": results["student_after"]},
            "against_its_start": _plain(decisions.compared(grades[number], start)),
            "against_the_best_before": _plain(decisions.compared(grades[number], grades[before.best])),
            "best_before": before.best,
            "rolled_back": after.rolled_back,
            "mined_share": self.pool_share(number, before.current),
            "mining_accuracy": decisions.accuracy([record["grade"] for record in asked]),
            "mined": json.loads((folder / POOL).with_suffix(".report.json").read_text()),
        }

    def write(self, standing: decisions.Standing, stopped: str) -> dict[str, Any]:
        """rounds.json and rounds.md as they stand."""
        found = {
            "rounds": self.done,
            "best": standing.best,
            "result": standing.current,
            "student": self.student(standing.current),
            "stopped": stopped,
            "asked_for": self.options.rounds,
            "held_out": len(grades_of(self.place(1), "after")),
        }
        write_atomically(self.folder / "rounds.md", round_report.markdown(found) + "\n")
        write_atomically(self.folder / "rounds.json", json.dumps(finite(found), indent=1) + "\n")
        return found


def grades_of(folder: Path, stage: str) -> list[float | None]:
    """Of the held-out problems, in their order, before or after a round's training."""
    return [record["grade"] for record in read_jsonl(folder / "evaluations.jsonl") if record["stage"] == stage]


def _plain(found: Any) -> dict[str, Any]:
    return {"difference": found.difference, "ci95": [found.low, found.high], "p_value": found.p_value, "n": found.n}


def child(words: Sequence[str]) -> None:
    """Runs a module to its end. It is sent SIGTERM when this process dies, however that happens (Linux).

    It tells its own mistakes; UserError where it failed.
    """
    started = time.time()
    status = subprocess.call([sys.executable, "-m", *words], preexec_fn=_ends_with_parent)
    if status:
        shown = " ".join(words[:2])
        raise UserError(f"{shown} ended with status {status} after {time.time() - started:.0f} s; its error is above")


def _ends_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
