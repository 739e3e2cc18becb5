"""Everything that can be known about a run before its first model is loaded, asked in one place.

Raises StartError with all findings together, the same on every process; what is only to think about is printed. What a
user's settings name is read; no weight is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reward_models import RewardSpec

from .. import distributed
from ..config import RunConfig, TeacherConfig, teachers_of
from ..data.loading import load_splits
from ..data.teacher_prompts import as_teacher_sees, prompt_table
from ..models.loading import load_config_of, load_tokenizer
from ..teachers.http_api.text_api import TextAPI
from ..types import Problem, Splits
from . import files, models, rewards
from .findings import Finding, found_by, stop_where_bad, warn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Looked:
    """What the checks have read, for the run to go on with."""

    tokenizer: Any
    splits: Splits


def check_files(config: RunConfig) -> None:
    """Folders, lock and trackers of any run. Raises StartError."""
    tell_all(file_findings(config) if distributed.is_main() else [])


def file_findings(config: RunConfig) -> list[Finding]:
    folder = Path(config.output_dir)
    findings = files.folder_findings("output_dir", folder)
    if config.cache_dir is not None:
        findings += files.folder_findings("cache_dir", Path(config.cache_dir))
    if not findings:
        findings += files.lock_findings(folder)
    return findings + files.tracker_findings(config.report_to or ()) + files.compile_lock_findings()


def check_evaluation(paths: Mapping[str, str], output_dir: Path) -> None:
    """The models of an evaluation, by label, and the folder of its records. Raises StartError."""
    findings = []
    if distributed.is_main():
        findings += files.folder_findings("output_dir", output_dir) or files.lock_findings(output_dir)
    for who, path in paths.items():
        findings += found_by(lambda who=who, path=path: evaluated_findings(who, path))  # type: ignore[misc]
    tell_all(findings)


def evaluated_findings(who: str, path: str) -> list[Finding]:
    """A model that only generates: any family will do."""
    config, tokenizer = load_config_of(path, who=who), load_tokenizer(path, who=who)
    return models.weight_file_findings(who, path) + models.vocabulary_findings(who, tokenizer, config)


def check_own(config: RunConfig) -> Looked:
    """The tokenizer and the problems of a run with models and prompts of the user's own. Raises StartError."""
    tell_all(settings_findings(config))  # without models that can be read nothing else can be looked at
    findings, looked = read_findings(config)
    tell_all(findings)
    assert looked is not None
    return looked


def examine(config: RunConfig) -> tuple[list[Finding], Looked | None]:
    """What `check_own` would tell, as a list, and what was read on the way; for one process. Raises nothing."""
    findings = settings_findings(config)
    if any(finding.level == "bad" for finding in findings):
        return findings, None
    more, looked = read_findings(config)
    return findings + more, looked


def settings_findings(config: RunConfig) -> list[Finding]:
    """Of the folders and of the files of each model."""
    findings = file_findings(config) if distributed.is_main() else []
    findings += found_by(lambda: model_findings("student", str(config.student_source)))
    for teacher in teachers_of(config):
        findings += found_by(lambda teacher=teacher: teacher_findings(teacher))  # type: ignore[misc]
    return findings


def read_findings(config: RunConfig) -> tuple[list[Finding], Looked | None]:
    """Of tokenizers, data and rewards, with what was read; None where the data could not be.

    A student without a chat template takes the teacher's: base models are often trained under instruct teachers.
    """
    teachers = teachers_of(config)
    tokenizer = load_tokenizer(str(config.student_source), who="student")
    findings = [finding for teacher in teachers for finding in _pair(tokenizer, teacher)]
    take_template(tokenizer, teachers)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    findings += found_by(lambda: student_findings(config))
    splits: list[Splits] = []
    findings += found_by(lambda: _read_data(config, tokenizer, splits))
    for read in splits:
        findings += found_by(lambda read=read: data_findings(config, tokenizer, read))  # type: ignore[misc]
    return findings, Looked(tokenizer, splits[0]) if splits else None


def tell_all(findings: Sequence[Finding]) -> None:
    """Raises StartError on every process where any of them has found something bad; prints what is to think about."""
    every = distributed.gather_list(list(findings))
    stop_where_bad(every)
    if distributed.is_main():
        warn(list(dict.fromkeys(every)))


def model_findings(who: str, path: str) -> list[Finding]:
    """A model's folder and tokenizer. ConfigError where its configuration cannot be read."""
    config, tokenizer = load_config_of(path, who=who), load_tokenizer(path, who=who)
    return [
        *models.family_findings(who, config),
        *models.weight_file_findings(who, path),
        *models.eos_findings(who, tokenizer),
        *models.vocabulary_findings(who, tokenizer, config),
    ]


def teacher_findings(teacher: TeacherConfig) -> list[Finding]:
    """A teacher's folder; behind a server it only names the tokenizer."""
    if teacher.placement == "remote":
        load_tokenizer(str(teacher.model), who="teacher")
        return []
    return model_findings(f"teacher {teacher.model}", str(teacher.model))


def _pair(tokenizer: PreTrainedTokenizerBase, teacher: TeacherConfig) -> list[Finding]:
    who = f"teacher {teacher.model}"
    return found_by(lambda: models.pair_findings(tokenizer, load_tokenizer(str(teacher.model), who=who), who))


def take_template(tokenizer: PreTrainedTokenizerBase, teachers: Sequence[TeacherConfig]) -> None:
    """Gives a tokenizer without a chat template that of the first teacher that has one."""
    for teacher in teachers:
        if not tokenizer.chat_template:
            tokenizer.chat_template = load_tokenizer(str(teacher.model), who="teacher").chat_template


def student_findings(config: RunConfig) -> list[Finding]:
    """LoRA's targets, and room on the disk for the checkpoints."""
    shape = load_config_of(str(config.student_source), who="student")
    findings = models.adapter_findings(config.student)
    if config.student.lora is not None:
        return findings + models.lora_findings(config.student.lora.target_modules, shape)
    size = models.checkpoint_bytes(str(config.student_source), shape)
    return findings + files.space_findings(Path(config.output_dir), size, config.checkpoint.keep_last)


def _read_data(config: RunConfig, tokenizer: PreTrainedTokenizerBase, into: list[Splits]) -> list[Finding]:
    into.append(load_splits(config.data, tokenizer, config.seed))
    return []


def data_findings(config: RunConfig, tokenizer: PreTrainedTokenizerBase, splits: Splits) -> list[Finding]:
    """Prompts against positions, rewards against the data's columns and gold answers."""
    named = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    num_new = config.generation.max_completion_length
    paths = {"student": str(config.student_source)}
    paths |= {f"teacher {t.model}": str(t.model) for t in teachers_of(config) if t.placement != "remote"}
    shapes = {who: load_config_of(path, who=who) for who, path in paths.items()}
    seen = teacher_prompts(config, tokenizer, named)
    each = (
        models.position_findings(who, shape, named if who == "student" else seen, tokenizer, num_new)
        for who, shape in shapes.items()
    )
    too_short = next((findings for findings in each if findings), [])  # one cure for all of them
    return too_short + check_rewards(config, tokenizer, splits.train)


def teacher_prompts(
    config: RunConfig, tokenizer: PreTrainedTokenizerBase, splits: Mapping[str, Sequence[Problem]]
) -> dict[str, Sequence[Problem]]:
    """The problems as the teacher sees them. Raises ConfigError where its template cannot be filled, or not uniquely,
    and TeacherServerError where an API is to write its texts and does not answer.
    """
    if config.teacher.text_api is not None and distributed.is_main():
        TextAPI(config.teacher.text_api)
    template = config.teacher.prompt_template
    if template is None:
        return dict(splits)
    prompt_table(template, config.data, [problem for split in splits.values() for problem in split], tokenizer)
    return {name: as_teacher_sees(template, config.data, split, tokenizer) for name, split in splits.items()}


def check_rewards(config: RunConfig, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]) -> list[Finding]:
    """Those of the main process, which starts graders for it. Of a mixture every entry that rewards count for."""
    if not distributed.is_main():
        return []
    rewarded = {
        f"data.mixture[{number}] ({entry.label}): ": [p for p in problems if p.source == entry.label]
        for number, entry in enumerate(config.data.mixture or ())
        if not entry.anchor_only
    }
    return rewards.reward_findings(
        [RewardSpec.from_config(entry) for entry in config.rewards],
        rewarded or {"": problems},
        lambda text: tokenizer(text, add_special_tokens=False)["input_ids"],
        has_teacher_texts=config.teacher.num_outputs_per_prompt > 0,
    )
