"""Distillation from Python: `Distiller(teacher_model=..., student_arch=..., task=...).train(train_data=..., epochs=1)`.

A thin layer over the stages of launch/ppo.py, in this process; what can be configured is what the configs can say.
Models may be folders, hub ids, or model objects with a tokenizer, which are saved to the output folder first.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from . import distributed, pipeline, run_setup, student_stages
from .config import ConfigError, RunConfig, load_config
from .config.command_line import check_writable, config_path
from .data.loading import load_splits
from .demo.models import make_splits
from .evals.distributed import solve
from .export.create import export
from .files import write_atomically
from .models.loading import load
from .ppo.hf_arguments import check_launch
from .progress import Stages, quiet_libraries
from .reporting.html import write as write_html
from .reporting.hub import check_hub, push_to_hub, repo_of
from .startup.chosen import keep_settings

Model = str | Path | PreTrainedModel
Data = str | Path | Iterable[Mapping[str, Any]]
Reward = str | Mapping[str, Any] | Callable[..., list[float | None]]

EXPORT_FILES = (".gguf", ".onnx")


class Distiller:
    """One distillation run. Without models it is the demo; with `config` (a file or a packaged name) it is that run.

    `student_arch`: a model, or "teacher:50%" and the like for one that is cut from the teacher (docs/students.md).
    `rewards`: names, config entries or functions in TRL's calling convention. `task`: the name that rows without a
    `task` column are counted under. Any other setting by its dotted name: `settings={"ppo.learning_rate": 1e-6}`.
    """

    def __init__(
        self,
        teacher_model: Model | None = None,
        student_arch: Model | None = None,
        task: str | None = None,
        *,
        data: Data | None = None,
        test_data: Data | None = None,
        rewards: Sequence[Reward] | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        output_dir: str | Path = "runs/distiller",
        config: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if (teacher_model is None) != (student_arch is None):
            raise ConfigError("give both teacher_model and student_arch, or neither for the demo")
        self.output_dir = Path(output_dir)
        check_writable(self.output_dir)
        self.path = None if config is None else config_path(str(config))
        self.settings: dict[str, Any] = {"output_dir": str(output_dir)}
        if teacher_model is not None and student_arch is not None:
            self.settings |= {"demo": None}
            self.settings["teacher.model"] = self._folder(teacher_model, "teacher", tokenizer)
            if isinstance(student_arch, str) and student_arch.startswith("teacher:"):
                self.settings["student.arch"] = student_arch
            else:
                self.settings["student.model"] = self._folder(student_arch, "student_before", tokenizer)
        elif config is None:
            self.path = config_path("demo")
        if task is not None:
            self.settings["data.task"] = task
        for name, source in (("train", data), ("test", test_data)):
            if source is not None:
                self.settings[f"data.{name}"] = self._file(source, name)
        if rewards is not None:
            self.settings["rewards"] = [reward_entry(reward) for reward in rewards]
        self.settings |= dict(settings or {})
        self.results: dict[str, Any] | None = None

    def config(self) -> RunConfig:
        """The run's settings as they are now. ConfigError where they contradict each other."""
        return load_config(self.path, self.settings)

    def train(
        self,
        train_data: Data | None = None,
        epochs: float | None = None,
        batch_size: int | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        """results.json of the finished run. `epochs`: passes over the training prompts, in place of ppo.num_steps.

        Other settings by name, dots written as double underscores: `ppo__learning_rate=1e-6`.
        """
        if train_data is not None:
            self.settings["data.train"] = self._file(train_data, "train")
        if batch_size is not None:
            self.settings["ppo.batch_size"] = batch_size
        self.settings |= {name.replace("__", "."): value for name, value in settings.items()}
        config = self.config()
        if config.num_teacher_processes:
            raise ConfigError("a dedicated teacher needs several processes: start the run with `rl-distill ppo`")
        check_launch(config)
        check_hub(config)
        quiet_libraries()
        distributed.set_threads(config.num_threads)
        stages = Stages()
        student_stages.check_stages(config)
        context = run_setup.prepare(config, stages)
        student_stages.prepare_student(config, context, stages)
        if epochs is not None:
            config = with_epochs(config, epochs, len(context.splits.train))
        self.results = pipeline.run(config, context, stages, self._command(config))
        if self.results is None:
            raise RuntimeError("training was stopped by SIGTERM; resume with resume_from_checkpoint='latest'")
        return self.results

    def evaluate(self, data: Data | None = None) -> dict[str, float]:
        """Accuracy by task and "overall" of the trained student, on the run's test problems or on `data`."""
        if data is not None:
            self.settings["data.test"] = self._file(data, "test")
        config = self.config()
        model, tokenizer = load(str(self.student()))
        if config.demo is not None:
            splits = make_splits(config.demo, config.seed)
        else:
            splits = load_splits(config.data, tokenizer, config.seed)
        return solve(model.to(distributed.device()), tokenizer, splits.test, config).accuracy()

    def report(self) -> Path:
        """The run's HTML page, drawn anew."""
        self.student()
        return write_html([self.output_dir])

    def export(self, path: str | Path, **settings: Any) -> Path:
        """The trained student at `path`: a file where it ends in .gguf or .onnx, else a Hugging Face folder.

        A file's certificate, card and, for ONNX, tokenizer are in a folder beside it, such as mine.gguf.export/.
        `settings` are those of rl_distill.export.create.export, such as weights="f16" or force=True. ConfigError where
        the format's limits are not met.
        """
        path = Path(path)
        if path.suffix in EXPORT_FILES:
            return self._export_file(path, settings)
        if settings:
            raise ConfigError(f"{', '.join(settings)}: for paths that end in {' or '.join(EXPORT_FILES)}")
        shutil.copytree(self.student(), path, dirs_exist_ok=True)
        return path

    def _export_file(self, path: Path, settings: Mapping[str, Any]) -> Path:
        name = path.suffix.removeprefix(".")
        folder = path.with_name(f"{path.name}.export")
        student = self.student()
        words = "".join(f", {key}={value!r}" for key, value in settings.items())
        export(student, folder, name, command=f"Distiller.export({str(path)!r}{words})", **settings)
        shutil.move(folder / f"model{path.suffix}", path)
        if (folder / "model.onnx.data").exists():  # the graph names this file
            shutil.move(folder / "model.onnx.data", path.with_name("model.onnx.data"))
        return path

    def push_to_hub(self, repo: str | None = None, private: bool | None = None) -> str:
        """Uploads the trained student with its model card; returns its address."""
        folder = self.student()
        return push_to_hub(folder, repo or repo_of(self.config()), private)

    def student(self) -> Path:
        """The folder of the trained student. ConfigError before training."""
        folder = self.output_dir / "student"
        if not (folder / "config.json").is_file():
            raise ConfigError(f"{self.output_dir} holds no trained student yet: call train() first")
        return folder

    def _folder(self, model: Model, name: str, tokenizer: PreTrainedTokenizerBase | None) -> str:
        """A folder or hub id as it is; a model object saved with its tokenizer."""
        if not isinstance(model, PreTrainedModel):
            return str(model)
        if tokenizer is None:
            raise ConfigError("a model object needs its tokenizer: Distiller(..., tokenizer=tokenizer)")
        folder = self.output_dir / "models" / name
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    def _file(self, data: Data, name: str) -> str:
        """A path or hub id as it is; rows written to a .jsonl file."""
        if isinstance(data, str | Path):
            return str(data)
        path = self.output_dir / "data" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, "".join(json.dumps(dict(row), default=str) + "\n" for row in data))
        return str(path)

    def _command(self, config: RunConfig) -> str:
        """The command line that repeats the run: its settings are kept in run.yaml."""
        return f"rl-distill ppo --config {keep_settings(config)}"


def reward_entry(reward: Reward) -> dict[str, Any]:
    """A config entry with weight 1 for a name or a function; an entry as it is."""
    if isinstance(reward, Mapping):
        return dict(reward)
    if isinstance(reward, str):
        return {"fn": reward, "weight": 1.0}
    module, name = reward.__module__, reward.__qualname__
    if "<" in name or "." in name:
        raise ConfigError(f"rewards: {name} must be a function at the top level of a module, so that it has a name")
    if module == "__main__":  # a script: the config names its file, so that the command line finds it too
        module = str(Path(sys.modules["__main__"].__file__ or "").resolve())
    return {"fn": f"{module}:{name}", "weight": 1.0}


def with_epochs(config: RunConfig, epochs: float, num_rows: int) -> RunConfig:
    """The config with as many PPO steps as make `epochs` passes over the training prompts."""
    prompts_per_step = config.ppo.batch_size / config.ppo.group_size
    num_steps = max(1, round(epochs * num_rows / prompts_per_step))
    return dataclasses.replace(config, ppo=dataclasses.replace(config.ppo, num_steps=num_steps))
