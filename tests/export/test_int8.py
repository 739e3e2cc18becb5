"""INT8 folders and graphs: smaller, near, and the same after loading."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from rl_distill.export.create import export

from .students import write_student

FEW = {"max_tokens": 300, "force": True}


def weight(folder):
    return AutoModelForCausalLM.from_pretrained(folder).model.layers[1].mlp.up_proj.weight


def test_torchao_weights_are_the_nearest_of_each_channel_and_reload_equal(tmp_path):
    quantization = pytest.importorskip("torchao.quantization")
    student = write_student(tmp_path / "student")
    found = export(student, tmp_path / "out", "int8", **FEW)
    original, rounded = weight(student).detach(), weight(tmp_path / "out").dequantize()
    scale = original.abs().amax(1, keepdim=True) / 127
    assert ((original - rounded).abs() <= 0.51 * scale).all()
    assert (original - rounded).abs().max() > 0
    assert found.texts_with_equal_ids == 1000
    assert found.distance.kl_mean < 0.02
    assert found.bytes < 0.55 * found.float_bytes
    assert not (tmp_path / "out" / "float32").exists()
    models = [AutoModelForCausalLM.from_pretrained(folder) for folder in (student, tmp_path / "out")]
    # rounded in memory, head and embedding left alone: what the folder must load as
    quantization.quantize_(models[0].model.layers, quantization.Int8WeightOnlyConfig(version=2))
    ids = torch.arange(3, 43).view(2, 20)
    with torch.no_grad():
        first, second = (model(ids).logits for model in models)
    assert torch.equal(first, second)


@pytest.mark.slow
def test_onnx_int8_is_smaller_and_near(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    student = write_student(tmp_path / "student")
    found = export(student, tmp_path / "out", "onnx-int8", **FEW)
    assert found.bytes < 0.5 * found.float_bytes
    assert 0 < found.distance.kl_mean < 0.05
    assert found.distance.top1_agreement > 0.8
    assert found.texts_with_equal_ids == 1000
    assert sorted(path.name for path in (tmp_path / "out").glob("*.onnx*")) == ["model.onnx"]
