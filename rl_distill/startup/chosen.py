"""The settings of a run kept in its folder, and what it chose for the student's size told once at the start.

May assume a checked RunConfig. Only the main process prints and writes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import yaml

from .. import distributed
from ..config import RunConfig
from ..files import write_atomically

RUN_FILE = "run.yaml"


def keep_settings(config: RunConfig) -> Path:
    """Writes run.yaml, with every setting of the run and the reasons in `chosen`; `--config` of it repeats the run."""
    path = Path(config.output_dir) / RUN_FILE
    if distributed.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = dataclasses.replace(config, resume_from_checkpoint=None, dry_run=False)
        write_atomically(path, yaml.safe_dump(whole.to_dict(), sort_keys=False))
    return path


def tell_chosen(config: RunConfig) -> None:
    """A line for each setting that the run chose; nothing where the config says all of them."""
    if not config.chosen or not distributed.is_main():
        return
    width = max(map(len, config.chosen))
    student = config.student.arch or config.student.model
    print(f"settings chosen for {student} (state one to change it; all are in {RUN_FILE}):")
    for name, words in config.chosen.items():
        print(f"  {name:<{width}}  {words}", flush=True)
