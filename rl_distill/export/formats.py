"""The table of formats: what each needs installed, its limits, and the functions that write it and read it back."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import ConfigError
from ..models.loading import load
from .artefact import Artefact, TorchModel
from .certificate import Limits


@dataclass(frozen=True)
class Request:
    """The float32 student, and what is asked for. `folder` is the place to write to."""

    model: Any
    tokenizer: Any
    folder: Path
    weights: str = "q8_0"
    """of GGUF files: f32, f16, q8_0"""


@dataclass(frozen=True)
class Format:
    """`write` gives notes for the certificate; `read` the artefact as it is on disk."""

    packages: tuple[str, ...]
    extra: str | None
    write: Callable[[Request], tuple[str, ...]]
    read: Callable[[Request], Artefact]
    limits: Callable[[str], Limits]
    weight_files: tuple[str, ...]


def check_installed(name: str, format_: Format) -> None:
    """ConfigError with the pip command where a package is missing."""
    missing = [package for package in format_.packages if importlib.util.find_spec(package) is None]
    if missing:
        command = f'pip install "rl_distill[{format_.extra}]"'
        raise ConfigError(f"--format {name} needs {', '.join(missing)}: {command}")


def write_hf(request: Request) -> tuple[str, ...]:
    request.model.save_pretrained(request.folder)
    request.tokenizer.save_pretrained(request.folder)
    return ()


def read_hf(request: Request) -> Artefact:
    return TorchModel(*load(request.folder, who="the export"))


def exact(_: str) -> Limits:
    return Limits(1.0, 1e-5, greedy_identical=True)


def gguf_limits(weights: str) -> Limits:
    return {"f32": Limits(1.0, 1e-4), "f16": Limits(0.99), "q8_0": Limits(0.97)}[weights]


def write_gguf(request: Request) -> tuple[str, ...]:
    from . import gguf_file

    return gguf_file.write(request)


def read_gguf(request: Request) -> Artefact:
    from . import gguf_file

    return gguf_file.read(request)


def onnx_limits(_: str) -> Limits:
    return Limits(1.0, 1e-4, greedy_identical=True)


def write_onnx(request: Request) -> tuple[str, ...]:
    from . import onnx_file

    return onnx_file.write(request)


def read_onnx(request: Request) -> Artefact:
    from . import onnx_file

    return onnx_file.read(request)


def rounded(_: str) -> Limits:
    return Limits(0.97)


def write_onnx_int8(request: Request) -> tuple[str, ...]:
    from . import onnx_file

    return onnx_file.write_int8(request)


def write_int8(request: Request) -> tuple[str, ...]:
    from . import int8

    return int8.write(request)


def read_int8(request: Request) -> Artefact:
    from . import int8

    return int8.read(request)


ONNX = ("onnx", "onnxruntime", "onnxscript")
ONNX_FILES = ("*.onnx", "*.onnx.data")
FORMATS: dict[str, Format] = {
    "hf": Format((), None, write_hf, read_hf, exact, ("*.safetensors",)),
    "onnx": Format(ONNX, "onnx", write_onnx, read_onnx, onnx_limits, ONNX_FILES),
    "onnx-int8": Format(ONNX, "onnx", write_onnx_int8, read_onnx, rounded, ONNX_FILES),
    "int8": Format(("torchao",), "quantize", write_int8, read_int8, rounded, ("*.safetensors",)),
    "gguf": Format(("gguf",), "gguf", write_gguf, read_gguf, gguf_limits, ("*.gguf",)),
}
