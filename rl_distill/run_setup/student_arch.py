"""A student cut from the run's teacher (`student.arch`), cached by its inputs, with its card in the run folder.

Assumes a teacher whose weights can be read from a folder or hub id. Nothing is trained here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from reward_models import RewardSpec

from .. import distributed
from ..config import ConfigError, RunConfig
from ..evals.evaluation import verdicts
from ..progress import Stages
from ..stage_cache import cache_key, cached
from ..students import Calibration, Row, StudentShapeConfig, init_student, parse_student_arch
from ..teachers import Teacher
from ..teachers.outputs import TeacherOutput
from ..types import Problem, Splits

NUM_TEXTS = 256
"""Prompts whose answers by the teacher measure importance and judge the cut."""
FEWEST_TEXTS = 16
CARD_FOLDER = "student_cut"


def shape_of(config: RunConfig) -> StudentShapeConfig | None:
    """What `student.arch` keeps of the teacher; None where it is not set. ConfigError where it cannot be read."""
    if config.student.arch is None:
        return None
    shape = parse_student_arch(config.student.arch)
    if shape.vocab is not None:
        raise ConfigError(
            "student.arch: a student with another vocabulary cannot be anchored to its teacher: cut both to the same "
            "corpus by `rl-distill init-student` and set student.model and teacher.model"
        )
    return shape


def calibration_rows(
    problems: Sequence[Problem], outputs: Sequence[TeacherOutput], specs: Sequence[RewardSpec]
) -> list[Row]:
    """The teacher's answers that pass the run's checks; all of them where nothing is checked."""
    found = verdicts(problems, [output.completions()[0] for output in outputs], specs)
    is_checked = any(verdict is not None for verdict in found)
    kept = [output for output, verdict in zip(outputs, found, strict=True) if verdict == 1.0 or not is_checked]
    return [Row(output.texts[0], output.prompt) for output in kept if output.texts[0]]


def calibration_of(shape: StudentShapeConfig, rows: Sequence[Row], num_asked: int) -> Calibration | None:
    """None, and a cut that is not judged, where few of the `num_asked` answers are fit and the criterion needs none."""
    if len(rows) >= FEWEST_TEXTS:
        return Calibration.of(rows)
    if shape.needing_text():
        raise ConfigError(
            f"student.arch: {len(rows)} of the teacher's {num_asked} answers pass the run's checks, too few to measure "
            "importance on: cut by `rl-distill init-student --calibration FILE` and set student.model"
        )
    return None


def cut_student(
    config: RunConfig,
    stages: Stages,
    teacher: Teacher,
    path: str,
    splits: Splits,
    answers: Callable[[Sequence[Problem]], list[TeacherOutput]],
) -> Path:
    """The folder of the student cut from the teacher, whose weights are at `path`; its card goes to the run's folder.

    `answers` gives the teacher's: those that pass the run's checks measure importance and judge the cut.
    """
    shape = shape_of(config)
    assert shape is not None
    with stages("student_cut", f"the student is cut from its teacher ({config.student.arch})"):
        problems = [*splits.cold_start, *splits.train][:NUM_TEXTS]
        outputs, specs = answers(problems), [RewardSpec.from_config(entry) for entry in config.rewards]
        rows = distributed.from_main(calibration_rows(problems, outputs, specs) if distributed.is_main() else None)
        calibration = calibration_of(shape, rows, len(problems))
        digest = hashlib.sha256(repr(calibration).encode()).hexdigest()
        key = cache_key(shape=dataclasses.asdict(shape), teacher=teacher.fingerprint, calibration=digest)
        place = Path(config.cache_dir or Path(config.output_dir) / "cache") / f"student-cut-{key}"
        folder = cached(place, partial(_make, path, shape, calibration, f"student.arch: {config.student.arch}"))
    _copy_card(folder, Path(config.output_dir) / CARD_FOLDER)
    return folder


def _make(teacher: str, shape: StudentShapeConfig, calibration: Calibration | None, command: str, folder: Path) -> None:
    """The main process cuts; a refusal reaches all of them."""
    failure = None
    if distributed.is_main():
        try:
            init_student(teacher, folder, shape, calibration, command=command)
        except ConfigError as error:
            failure = str(error)
    failure = distributed.from_main(failure)
    if failure is not None:
        raise ConfigError(f"student.arch: {failure}")


def _copy_card(student: Path, folder: Path) -> None:
    if distributed.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("README.md", "student.json"):
            shutil.copyfile(student / name, folder / name)
