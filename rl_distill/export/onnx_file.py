"""ONNX graphs with a KV cache for onnxruntime: one graph reads the prompt and continues it.

Inputs: input_ids and position_ids (batch, length), attention_mask (batch, total), past.I.key and past.I.value
(batch, groups, past, head), `past` being 0 at the start. Outputs: logits (batch, length, vocabulary), present.I.*.
Batch and lengths are free. Assumes attention in every layer; written by torch.onnx, which traces by torch.export.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from ..config import ConfigError
from ..models.loading import load_tokenizer, text_config
from .formats import Request

FILE_NAME = "model.onnx"
AXES = ("batch", "length", "total", "past")


class _WithCache(torch.nn.Module):
    """The model as a function of tensors alone: the cache is a list of each layer's keys and values."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        cache = DynamicCache(config=self.model.config)
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        found = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        layers: list[Any] = cache.layers
        return found.logits, [part for layer in layers for part in (layer.keys, layer.values)]


def check(config: Any) -> None:
    """ConfigError where a layer keeps something else than all keys and values."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or (getattr(config, "sliding_window", None) and not hasattr(config, "layer_types")):
        raise ConfigError("onnx: only models with full attention in every layer can be written")


def write(request: Request) -> tuple[str, ...]:
    """model.onnx, with model.onnx.data above 1.5 GB of weights, the config and the tokenizer."""
    import onnx

    config = text_config(request.model)
    check(config)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    past = [torch.zeros(2, groups, 5, head_dim) for _ in range(2 * config.num_hidden_layers)]
    ids = torch.zeros(2, 3, dtype=torch.long)
    places = torch.arange(5, 8).repeat(2, 1)  # sizes of 0 and 1 would be taken as fixed
    inputs = ids, torch.ones(2, 8, dtype=torch.long), places, past
    with _quietly():
        program = _export(_WithCache(request.model).eval(), inputs, config.num_hidden_layers)
    path = request.folder / FILE_NAME
    program.save(path, external_data=request.model.num_parameters() * 4 > 1.5e9)
    graph = onnx.load(path, load_external_data=False)
    name_axes(graph)
    strip(graph)
    onnx.save(graph, path)
    request.model.config.save_pretrained(request.folder)
    request.tokenizer.save_pretrained(request.folder)
    return ()


def write_int8(request: Request) -> tuple[str, ...]:
    """As `write`, the matrices then in INT8 with a scale per channel, activations rounded as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    write(request)
    path, plain = request.folder / FILE_NAME, request.folder / "float32.onnx"
    external = path.with_name(f"{FILE_NAME}.data")
    with _quietly():
        path.rename(plain)
        settings = {"per_channel": True, "weight_type": QuantType.QInt8}
        quantize_dynamic(plain, path, use_external_data_format=external.exists(), **settings)
    plain.unlink()
    return ()


def _export(module: torch.nn.Module, inputs: tuple[Any, ...], num_layers: int) -> Any:
    batch, free = torch.export.Dim("batch"), torch.export.Dim.DYNAMIC
    rows = {0: batch, 1: free}
    caches = [f"{layer}.{part}" for layer in range(num_layers) for part in ("key", "value")]
    with torch.no_grad():
        return torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            dynamic_shapes=(rows, rows, rows, [{0: batch, 2: free} for _ in caches]),
            input_names=["input_ids", "attention_mask", "position_ids", *(f"past.{name}" for name in caches)],
            output_names=["logits", *(f"present.{name}" for name in caches)],
            verbose=False,
        )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps notices of torch and onnxruntime off the terminal; errors stay."""
    loggers = [logging.getLogger(name) for name in (None, "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def name_axes(graph: Any) -> None:
    """Readable names for the free axes of a graph's inputs and outputs, in place of torch's s70."""
    for value in (*graph.graph.input, *graph.graph.output):
        dims = value.type.tensor_type.shape.dim
        second = {"attention_mask": "total"}.get(value.name, "length")
        names = {"past": {0: "batch", 2: "past"}, "present": {0: "batch", 2: "total"}}.get(
            re.split(r"\.", value.name)[0], {0: "batch", 1: second}
        )
        for place, name in names.items():
            dims[place].dim_param = name


def strip(graph: Any) -> None:
    """Takes out the notes on where in PyTorch's source each node came from; they are larger than a small model."""
    bodies = [graph.graph, *graph.functions]
    for node in (node for body in bodies for node in body.node):
        del node.metadata_props[:]
        node.doc_string = ""
    del graph.graph.value_info[:]  # inner shapes in torch's names; onnxruntime infers its own


class OnnxModel:
    """A session on the CPU with as many threads as torch has, and the folder's tokenizer."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            str(folder / FILE_NAME), options, providers=["CPUExecutionProvider"]
        )
        self.tokenizer = load_tokenizer(folder, who="the export")
        self.caches = [value for value in self.session.get_inputs() if value.name.startswith("past.")]

    def forward(self, ids_BT: Tensor, mask_BS: Tensor, positions_BT: Tensor, past: Any) -> tuple[Tensor, Any]:
        if past is None:
            shapes = [(len(ids_BT), value.shape[1], 0, value.shape[3]) for value in self.caches]
            past = [np.zeros(shape, dtype=np.float32) for shape in shapes]
        inputs = {"input_ids": ids_BT, "attention_mask": mask_BS, "position_ids": positions_BT}
        feed = {name: tensor.numpy() for name, tensor in inputs.items()}
        feed |= {value.name: array for value, array in zip(self.caches, past, strict=True)}
        logits_BTV, *present = self.session.run(None, feed)
        return torch.from_numpy(logits_BTV), present

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])


def read(request: Request) -> OnnxModel:
    return OnnxModel(request.folder)
