"""A run's settings from a YAML file with its `base` files and overrides such as `--ppo.learning_rate 1e-4`, checked."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any

from .checks import check
from .own_defaults import with_own_defaults
from .reading import ConfigError, build, convert_field, nearest, read_file, set_dotted
from .schema import RunConfig, TeacherConfig

Config = typing.TypeVar("Config", bound=RunConfig)


def load_config(
    path: str | Path | None,
    overrides: dict[str, Any] | None = None,
    cls: type[Config] = RunConfig,  # type: ignore[assignment]  # github.com/python/mypy/issues/3737
) -> Config:
    """The run's settings: the file (and its `base` files) under the overrides, dotted keys such as "ppo.num_steps".

    What a run with models of its own leaves open follows its student (own_defaults.py; `chosen` says what and why).
    `cls` is RunConfig, or a class that extends it by settings of its own. Raises ConfigError on a missing file, an
    unknown key (naming the nearest), a value of the wrong type or settings that contradict each other.
    """
    settings = read_file(Path(path)) if path is not None else {}
    for key, value in (overrides or {}).items():
        set_dotted(settings, key, value)
    built: Config = build(cls, settings, "")
    config = typing.cast("Config", with_own_defaults(built, settings, teachers_of(built)))
    check(config, teachers_of(config))
    return config


OF_ONE_TEACHER = (
    "model",
    "dtype",
    "quantization",
    "autocast",
    "micro_batch_size",
    "placement",
    "sharded",
    "server",
    "tasks",
)
"""What an entry of teachers may say; all else is the same for all teachers."""


def teachers_of(config: RunConfig) -> list[TeacherConfig]:
    """The run's teachers: `teacher` itself, or each entry of `teachers` over it. Raises ConfigError."""
    found = []
    for number, entry in enumerate(config.teachers):
        prefix = f"teachers[{number}]."
        for key in entry:
            if key not in OF_ONE_TEACHER:
                raise ConfigError(f"{prefix}{key} is no setting of one teacher; {nearest(str(key), OF_ONE_TEACHER)}")
        changes = {key: convert_field(TeacherConfig, key, value, prefix + key) for key, value in entry.items()}
        found.append(dataclasses.replace(config.teacher, **changes))
    return found or [config.teacher]
