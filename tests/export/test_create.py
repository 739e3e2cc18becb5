"""The command, the Hugging Face folder, the certificate, and what is refused."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl_distill.cli import main
from rl_distill.config import ConfigError
from rl_distill.export import formats
from rl_distill.export.create import export

from .students import write_student


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    folder = write_student(tmp_path_factory.mktemp("student") / "mine")
    (folder / "README.md").write_text("# Mine\n\nIts story.\n\n## Export\n\nof an earlier format\n")
    return folder


def test_the_folder_holds_the_same_model_and_a_certificate(student, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", str(student), "--format", "hf", "--out", str(out), "--max_tokens", "300"]) == 0
    assert "1,000 of 1,000" in capsys.readouterr().out
    ids = AutoTokenizer.from_pretrained(out)("12 apples 苹果", return_tensors="pt")["input_ids"]
    first, second = (AutoModelForCausalLM.from_pretrained(folder)(ids).logits for folder in (student, out))
    assert torch.equal(first, second)
    found = json.loads((out / "certificate.json").read_text())
    assert found["failures"] == []
    assert found["distance"]["max_logit_difference"] == 0
    assert found["distance"]["kl_max"] == 0
    assert 0 < found["distance"]["num_tokens"] <= 300
    weights = (out / "model.safetensors").read_bytes()
    assert found["files"]["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert found["bytes"] == len(weights)
    card = (out / "README.md").read_text()
    assert "Its story." in card
    assert "of an earlier format" not in card
    assert card.count("## Export") == 1
    assert found["command"] in card


def damage(request):
    """As a format that loses precision badly: every weight with noise."""
    formats.write_hf(request)
    model = AutoModelForCausalLM.from_pretrained(request.folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(request.folder)
    return ("noise was added",)


def test_a_bad_export_is_refused_or_marked(student, tmp_path, monkeypatch, capsys):
    whole = formats.FORMATS["hf"]
    bad = formats.Format((), None, damage, whole.read, whole.limits, whole.weight_files)
    monkeypatch.setitem(formats.FORMATS, "hf", bad)
    arguments = ["export", str(student), "--format", "hf", "--out", str(tmp_path / "out"), "--max_tokens", "300"]
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    error = capsys.readouterr().err
    assert "top-1 agreement" in error
    assert "--force" in error
    assert list(tmp_path.iterdir()) == []
    assert main([*arguments, "--force"]) == 0
    assert len(json.loads((tmp_path / "out" / "certificate.json").read_text())["failures"]) == 3
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Exported with --force, against its limits" in card
    assert "noise was added" in card


def test_mistakes_are_one_line(student, tmp_path, capsys, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(student), "--format", "hf", "--out", str(tmp_path / "full")])
    assert "exists already" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(tmp_path / "none"), "--format", "hf", "--out", str(tmp_path / "out")])
    assert capsys.readouterr().err.count("\n") == 1
    missing = formats.Format(("no_such_package",), "gguf", *[formats.write_hf] * 4)
    monkeypatch.setitem(formats.FORMATS, "hf", missing)
    with pytest.raises(ConfigError, match=r'needs no_such_package: pip install "rl_distill\[gguf\]"'):
        export(student, tmp_path / "out", "hf")


def test_texts_of_the_user_are_compared_on(student, tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "Tom has 12 apples."}\n')
    found = export(student, tmp_path / "out", "hf", texts=tmp_path / "texts.jsonl")
    tokenizer = AutoTokenizer.from_pretrained(student)
    assert found.distance.num_tokens == len(tokenizer("Tom has 12 apples.")["input_ids"])
    assert found.num_texts == 1000
