"""The graph under onnxruntime against the float model: every batch and length, padding, the cache, greedy answers."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl_distill.config import ConfigError
from rl_distill.export.artefact import greedy, logits
from rl_distill.export.create import export

from .students import write_student

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
FEW = {"max_tokens": 300}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    from rl_distill.export.onnx_file import OnnxModel

    folder = tmp_path_factory.mktemp("onnx")
    student = write_student(folder / "student")
    found = export(student, folder / "out", "onnx", **FEW)
    return AutoModelForCausalLM.from_pretrained(student), OnnxModel(folder / "out"), found, folder / "out"


def random_rows(lengths):
    generator = torch.Generator().manual_seed(sum(lengths))
    return [torch.randint(3, 400, (length,), generator=generator).tolist() for length in lengths]


@pytest.mark.parametrize("lengths", [(1,), (64,), (7, 2), (1, 33, 16), (64, 3, 1, 20)])
def test_logits_of_padded_batches_are_those_of_each_row_alone(exported, lengths):
    model, graph, _, _ = exported
    rows = random_rows(lengths)
    with torch.no_grad():
        expected = [model(torch.tensor([row])).logits[0] for row in rows]
    for ours, theirs in zip(logits(graph, rows, 0), expected, strict=True):
        assert (ours - theirs).abs().max() < 1e-4


@pytest.mark.parametrize("lengths", [(5,), (9, 2), (1, 4, 12, 3)])
def test_greedy_answers_are_those_of_generate(exported, lengths):
    model, graph, _, out = exported
    tokenizer = AutoTokenizer.from_pretrained(out)
    rows = random_rows(lengths)
    batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt", padding_side="left")
    model.generation_config.eos_token_id = None
    expected = model.generate(**batch, max_new_tokens=32, do_sample=False)[:, -32:]
    assert torch.equal(greedy(graph, rows, tokenizer.pad_token_id, 32), expected)


def test_with_the_cache_as_without(exported):
    graph = exported[1]
    (row,) = random_rows((12,))
    whole = logits(graph, [row], 0)[0]
    past, ids = None, torch.tensor([row])
    for start, stop in ((0, 5), (5, 6), (6, 12)):
        places = torch.arange(start, stop)[None]
        part_BTV, past = graph.forward(ids[:, start:stop], torch.ones(1, stop, dtype=torch.long), places, past)
        assert (part_BTV[0] - whole[start:stop]).abs().max() < 1e-4


def test_axes_have_names(exported):
    graph = onnx.load(exported[3] / "model.onnx").graph
    axes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.input}
    axes |= {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.output}
    assert axes["input_ids"] == axes["position_ids"] == ["batch", "length"]
    assert axes["attention_mask"] == ["batch", "total"]
    assert axes["past.1.value"] == ["batch", 2, "past", 32]
    assert axes["present.0.key"] == ["batch", 2, "total", 32]
    assert axes["logits"] == ["batch", "length", 403]


def test_the_certificate(exported):
    found = exported[2]
    assert found.failures == ()
    assert found.distance.greedy_identical == found.distance.num_answers > 1
    assert found.texts_with_equal_ids == 1000
    assert {"onnx", "onnxruntime", "onnxscript"} <= set(found.versions)
    assert 0.9 < found.bytes / found.float_bytes < 1.5


def test_sliding_windows_are_refused(tmp_path):
    student = write_student(tmp_path / "student", use_sliding_window=True, sliding_window=4, max_window_layers=1)
    with pytest.raises(ConfigError, match="full attention in every layer"):
        export(student, tmp_path / "out", "onnx", **FEW)
