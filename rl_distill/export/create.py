"""A student's folder to an artefact's folder: write, read back from the disk, compare, certify, put in place.

The folder appears whole or not at all, and not where a limit is missed, unless forced. Runs on the CPU.
"""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from ..config import ConfigError
from ..evals.comparison import size_of
from ..models.loading import load
from ..provenance import versions
from . import certificate
from .artefact import TorchModel
from .certificate import Certificate
from .formats import FORMATS, Format, Request, check_installed
from .parity import distance, first_changed, rows_of, speeds
from .texts import generated_texts, texts_of


def export(
    student: str | Path,
    out: str | Path,
    format_name: str,
    *,
    weights: str = "q8_0",
    texts: Path | None = None,
    max_tokens: int = 8192,
    force: bool = False,
    command: str = "rl_distill.export.create.export(...)",
) -> Certificate:
    """The certificate of the artefact now in `out`. ConfigError, and nothing written, where a limit is not met."""
    out, format_ = Path(out), _format(format_name)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"out: {str(out)!r} exists already; give a folder that does not")
    check_installed(format_name, format_)
    samples = texts_of(texts)
    model, tokenizer = load(student, who="student")
    folder = out.with_name(out.name + ".tmp")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    request = Request(model, tokenizer, folder, weights)
    try:
        notes = format_.write(request)
        facts = {"student": str(student), "notes": notes, "command": command}
        name = f"{format_name} {weights}" if format_name == "gguf" else format_name
        found = _certify(request, format_, samples, max_tokens, {"format": name} | facts)
        if found.failures and not force:
            raise ConfigError(f"{name}: not exported ({'; '.join(found.failures)}); --force exports and marks it")
        _copy_card(Path(student), folder)
        certificate.write(found, folder)
        folder.replace(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise ConfigError(f"format: no {name!r}; there are {', '.join(FORMATS)}")
    return FORMATS[name]


def _certify(
    request: Request, format_: Format, samples: list[str], max_tokens: int, facts: dict[str, Any]
) -> Certificate:
    reference, artefact = TorchModel(request.model, request.tokenizer), format_.read(request)
    texts = generated_texts()
    num_equal, changed = first_changed(reference, artefact, texts)
    rows, pad = rows_of(reference, samples, max_tokens), request.tokenizer.pad_token_id or 0
    if not rows:
        raise ConfigError("texts: no text has a token")
    found = distance(reference, artefact, rows, pad)
    limits = format_.limits(request.weights)
    timed = speeds(reference, artefact, rows, pad)
    size = size_of(request.model)
    return Certificate(
        limits=limits,
        failures=tuple(certificate.failures(limits, found, len(texts), num_equal)),
        num_texts=len(texts),
        texts_with_equal_ids=num_equal,
        first_changed_text=changed,
        distance=found,
        float_speed=timed[0],
        speed=timed[1],
        parameters=size["parameters"],
        float_bytes=size["bytes"],
        bytes=sum(p.stat().st_size for pattern in format_.weight_files for p in request.folder.glob(pattern)),
        files=certificate.hashes(request.folder),
        versions=versions() | {name: metadata.version(name) for name in format_.packages},
        **facts,
    )


def _copy_card(student: Path, folder: Path) -> None:
    if (student / "README.md").is_file():
        shutil.copy(student / "README.md", folder)
