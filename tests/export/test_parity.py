"""Distances and decoding against numbers by hand and against `generate`."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl_distill.export.artefact import TorchModel, greedy
from rl_distill.export.certificate import Limits, failures
from rl_distill.export.parity import Distance, distance
from rl_distill.export.texts import generated_texts

from .students import write_student


class Table:
    """Logits by token, two words."""

    def __init__(self, logits_VV):
        self.logits_VV = torch.tensor(logits_VV)

    def forward(self, ids_BT, mask_BS, positions_BT, past):
        return self.logits_VV[ids_BT], None


def test_distance_by_hand():
    ln3 = math.log(3)
    reference = Table([[0.0, 0.0], [ln3, 0.0]])
    ours = Table([[0.0, 0.0], [0.0, ln3]])
    found = distance(reference, ours, [[0, 1], [1, 1, 0]], pad=0)
    assert found.num_tokens == 5
    assert found.top1_agreement == pytest.approx(2 / 5)
    assert found.max_logit_difference == pytest.approx(ln3)
    assert found.mean_logit_difference == pytest.approx(3 * ln3 / 5)
    assert found.kl_max == pytest.approx(0.75 * ln3 - 0.25 * ln3)
    assert found.kl_mean == pytest.approx(3 / 5 * 0.5 * ln3)
    assert found.greedy_identical == 1  # [0, 1] ends in 1 and differs; [1, 1, 0] ends in 0, whose tie is 0 in both


def test_limits_are_named_that_are_not_met():
    found = Distance(10, 0.5, 0.1, 0.9, 0.1, 0.2, 7, 8, 32)
    assert list(failures(Limits(0.9), found, 3, 3)) == []
    assert len(list(failures(Limits(0.95, 1e-4, greedy_identical=True), found, 3, 2))) == 4
    broken = Distance(10, math.nan, 0.1, math.nan, 0.1, 0.2, 8, 8, 32)
    assert len(list(failures(Limits(0.9, 1.0), broken, 3, 3))) == 2


def test_greedy_is_that_of_generate(tmp_path):
    folder = write_student(tmp_path / "student")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = [tokenizer(text)["input_ids"] for text in ("12 + 30 =", "A train", "Tom's 3 apples\n苹果")]
    batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
    model.generation_config.eos_token_id = None
    expected = model.generate(**batch, max_new_tokens=12, do_sample=False)[:, -12:]
    assert torch.equal(greedy(TorchModel(model, tokenizer), rows, tokenizer.pad_token_id, 12), expected)


def test_generated_texts_are_varied_and_fixed():
    texts = generated_texts()
    assert texts == generated_texts()
    assert len(set(texts)) > 990
    everything = "".join(texts)
    assert all(piece in everything for piece in ("\n\n", "\r\n", "\t", "苹果", "🚀", "👩‍🔬", "def f", "don't", "½"))
