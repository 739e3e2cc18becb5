"""README.md of an exported folder: what the model is, its results with intervals, how it was made, its licence.

May assume a finished run's results. Claims nothing that results.json does not hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..config import RunConfig, teachers_of
from ..evals.statistics import wilson
from ..files import write_atomically

UNKNOWN_LICENCE = "other"
NO_LICENCE = """
The licence could not be read from the base model: before you publish this folder, set `license` above to what the base
model, the teacher and the data allow.
"""


def write_model_card(folder: Path, config: RunConfig, results: dict[str, Any], command: str) -> Path:
    path = folder / "README.md"
    write_atomically(path, model_card(config, results, command))
    return path


def model_card(config: RunConfig, results: dict[str, Any], command: str) -> str:
    """The card as the Hugging Face Hub reads it: YAML between dashes, then Markdown."""
    licence = licence_of(config)
    header: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation", "license": licence}
    header |= {"tags": ["rl_distill", "distillation"]}
    if config.demo is None:
        header["base_model"] = str(config.student_source)
    notice = NO_LICENCE if licence == UNKNOWN_LICENCE else ""
    return f"""---
{yaml.safe_dump(header, sort_keys=False).strip()}
---

# {Path(config.output_dir).name}

A student model trained under a teacher with rl_distill.
{notice}
{sources(config)}

## Results

Greedy answers to {results["num_test"]:,} held-out problems; 95 % intervals in parentheses.

{result_table(results)}

## How it was made

```
{command}
```

Seed {results["seed"]}; {results["ledger"]["student_sequences"]:,} completions sampled; versions:
{", ".join(f"{name} {version}" for name, version in results["versions"].items())}.
Every setting and number is in the run's `results.json`.
"""


def sources(config: RunConfig) -> str:
    """Base models and data as a list."""
    if config.demo is not None:
        return "Student, teacher and data are synthetic: the demo of rl_distill made them."
    teachers = ", ".join(f"`{teacher.model}`" for teacher in teachers_of(config))
    data = ", ".join(f"`{entry.train}`" for entry in config.data.mixture or (config.data,))
    cut = f" (student.arch: `{config.student.arch}`)" if config.student.arch else ""
    return f"- student before training: `{config.student_source}`{cut}\n- teacher: {teachers}\n- data: {data}"


def result_table(results: dict[str, Any]) -> str:
    """Accuracy by task of teacher, student before and after; the interval where all problems are known to count."""
    rows = ["| task | teacher | student before | student after |", "|---|---|---|---|"]
    for task, teacher in results["teacher"].items():
        values = (teacher, results["student_before"][task], results["student_after"][task])
        n = results["num_test"] if task == "overall" else None
        rows.append(f"| {task} | " + " | ".join(accuracy(value, n) for value in values) + " |")
    return "\n".join(rows)


def accuracy(value: float | None, n: int | None) -> str:
    if value is None or value != value:
        return "not graded"
    if n is None:
        return f"{100 * value:.1f} %"
    low, high = wilson(value, n)
    return f"{100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def licence_of(config: RunConfig) -> str:
    """That of the student's base model, from the model card in its folder; the demo's is this project's own."""
    if config.demo is not None:
        return "apache-2.0"
    card = Path(str(config.student_source)) / "README.md"
    if not card.is_file():
        return UNKNOWN_LICENCE
    parts = card.read_text().split("---")
    try:
        header = yaml.safe_load(parts[1]) if len(parts) > 2 else {}
    except yaml.YAMLError:
        return UNKNOWN_LICENCE
    return str(header.get("license", UNKNOWN_LICENCE)) if isinstance(header, dict) else UNKNOWN_LICENCE
