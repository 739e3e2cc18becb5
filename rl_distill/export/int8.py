"""INT8 weights by torchao, as a Hugging Face folder: one scale per output channel; embedding and head stay float.

Computes in float32. Assumes the `torchao` package; transformers reads the folder where that is installed.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, TorchAoConfig

from ..models.loading import load_tokenizer
from .artefact import Artefact, TorchModel
from .formats import Request


def write(request: Request) -> tuple[str, ...]:
    """The folder, made from a float32 copy, which torchao rounds as it is loaded."""
    from torchao.quantization import Int8WeightOnlyConfig

    plain = request.folder / "float32"
    request.model.save_pretrained(plain)
    settings = TorchAoConfig(Int8WeightOnlyConfig(version=2))
    rounded: Any = AutoModelForCausalLM.from_pretrained(plain, quantization_config=settings, dtype=torch.float32)
    rounded.save_pretrained(request.folder)
    request.tokenizer.save_pretrained(request.folder)
    for path in plain.iterdir():
        path.unlink()
    plain.rmdir()
    return ("Embedding and output head are in float32.",)


def read(request: Request) -> Artefact:
    model = AutoModelForCausalLM.from_pretrained(request.folder)
    return TorchModel(model, load_tokenizer(request.folder, who="the export"))
