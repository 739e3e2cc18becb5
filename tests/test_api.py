"""`from rl_distill import Distiller`: a whole run on tiny models from Python, and its report, export and upload."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl_distill import Distiller
from rl_distill.api import with_epochs
from rl_distill.config import ConfigError, RunConfig
from tests.tiny_run import SETTINGS, make_config, make_context

SMALL = {name: value for name, value in SETTINGS.items() if name not in ("rewards", "ppo.num_steps")}


def brevity(completions, **kwargs):
    return [1 / (1 + len(text)) for text in completions]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A Distiller after train(), from model objects, rows and functions."""
    folder = tmp_path_factory.mktemp("distiller")
    context = make_context(make_config(folder))
    rows = [{"prompt": p.prompt, "task": p.task, **p.columns} for p in context.splits.train]
    distiller = Distiller(
        teacher_model=context.teacher.model,
        student_arch=context.student,
        tokenizer=context.tokenizer,
        task="math",
        test_data=rows[:10],
        rewards=["task_check", brevity],
        output_dir=folder / "run",
        settings=SMALL | {"teacher.num_evidence_prompts": 10},
    )
    results = distiller.train(train_data=rows, epochs=0.5, batch_size=8)
    return distiller, results


def test_train_runs_everything_and_returns_the_results(trained):
    distiller, results = trained
    assert results["config"]["ppo"]["num_steps"] == 2  # half of 38 rows (two are held out) in steps of 8
    assert results == json.loads((distiller.output_dir / "results.json").read_text())
    assert {"teacher", "student_before", "student_after", "gap_recovered"} <= set(results)
    names = (distiller.output_dir / "metrics.jsonl").read_text()
    assert "rewards/brevity/mean" in names
    assert "rewards/task_check/mean" in names


def test_the_command_in_the_results_repeats_the_run(trained):
    distiller, results = trained
    assert results["command"] == f"rl-distill ppo --config {distiller.output_dir / 'run.yaml'}"
    again = yaml.safe_load((distiller.output_dir / "run.yaml").read_text())
    assert again["student"]["model"] == str(distiller.output_dir / "models" / "student_before")
    assert again["ppo"]["num_steps"] == results["config"]["ppo"]["num_steps"]


def test_evaluate_gives_the_accuracies_of_the_run(trained):
    distiller, results = trained
    assert distiller.evaluate() == pytest.approx(results["student_after"])


def test_export_is_a_hugging_face_folder_with_a_model_card(trained, tmp_path):
    distiller, results = trained
    folder = distiller.export(tmp_path / "mine")
    AutoModelForCausalLM.from_pretrained(folder)
    AutoTokenizer.from_pretrained(folder)
    card = (folder / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["base_model"] == results["config"]["student"]["model"]
    assert header["license"] == "other"  # the base model's folder names none
    assert "could not be read" in card
    assert results["command"] in card
    accuracy = results["student_after"]["overall"]
    assert f"{100 * accuracy:.1f} % (" in card


def test_export_by_suffix_is_a_file_with_its_certificate(trained, tmp_path):
    gguf = pytest.importorskip("gguf")
    path = trained[0].export(tmp_path / "mine.gguf", weights="f16", force=True, max_tokens=300)
    assert path == tmp_path / "mine.gguf"
    assert gguf.GGUFReader(path).get_field("general.file_type").contents() == 1
    certificate = json.loads((tmp_path / "mine.gguf.export" / "certificate.json").read_text())
    assert certificate["format"] == "gguf f16"
    assert "mine.gguf', weights='f16'" in certificate["command"]
    with pytest.raises(ConfigError, match="weights: for paths that end in"):
        trained[0].export(tmp_path / "folder", weights="f16")


def test_the_report_is_the_finished_page(trained):
    text = trained[0].report().read_text()
    assert "http-equiv" not in text
    assert "How it went" in text


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as an upload of small files needs; keeps what was committed."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self._answer({"url": f"http://{self.headers['Host']}/me/{json.loads(body)['name']}"})
        elif self.path == "/api/validate-yaml":
            self._answer({"warnings": [], "errors": []})
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        else:
            lines = [json.loads(line) for line in body.splitlines()]
            values = [line["value"] for line in lines if line["key"] == "file"]
            self.files |= {value["path"]: base64.b64decode(value["content"]) for value in values}
            self._answer(
                {"commitUrl": f"http://{self.headers['Host']}/me/mine/commit/1", "commitOid": "1", "success": True}
            )

    def do_GET(self):
        self._answer({"name": "me", "type": "user", "auth": {}})

    def _answer(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def test_push_to_hub_uploads_weights_tokenizer_and_card(trained):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    script = (
        "import sys, pathlib; from rl_distill.reporting.hub import push_to_hub;"
        "push_to_hub(pathlib.Path(sys.argv[1]), 'mine')"
    )
    environment = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_TOKEN": "hf_test",
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    folder = trained[0].student()
    command = [sys.executable, "-c", script, str(folder)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)
    server.shutdown()
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= set(Hub.files)
    assert Hub.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_without_a_login_the_run_ends_before_it_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "nothing"))
    script = (
        "from rl_distill.config import RunConfig, ConfigError\nfrom rl_distill.reporting.hub import check_hub\n"
        "try:\n    check_hub(RunConfig(push_to_hub=True))\nexcept ConfigError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "push_to_hub: not logged in to the hub; run `hf auth login`" in done.stdout


def test_mistakes_are_said_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="give both teacher_model and student_arch"):
        Distiller(teacher_model="x", output_dir=tmp_path)
    with pytest.raises(ConfigError, match="call train"):
        Distiller(output_dir=tmp_path).report()
    with pytest.raises(ConfigError, match="must be a function at the top level"):
        Distiller(rewards=[lambda completions, **kw: []], output_dir=tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'gsm8k_qwen'"):
        Distiller(config="gsm8k_qwn", output_dir=tmp_path)


def test_epochs_are_passes_over_the_prompts():
    config = RunConfig()  # 128 completions per step, one per prompt
    assert with_epochs(config, 3, 1280).ppo.num_steps == 30
    assert with_epochs(config, 0.001, 1280).ppo.num_steps == 1


def test_importing_the_package_imports_no_torch():
    script = "import sys, rl_distill; assert 'torch' not in sys.modules; rl_distill.Distiller"
    assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == 0
