"""Evaluation in real processes: one = two, kill -9 and resume, errors in one line, an overlap found, a page drawn."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no"]
LAUNCH += ["--dynamo_backend", "no", "--main_process_port", "0"]
TWO = [*LAUNCH, "--multi_gpu", "--num_processes", "2"]
SETTINGS = [
    "--tasks",
    "demo",
    "--limit",
    "24",
    "--batch_size",
    "4",
    "--max_new_tokens",
    "100",
    "--num_threads",
    "1",
]
SETTINGS += ["--num_samples", "2", "--temperature", "1", "--k", "1", "2"]


def start(launcher, models, out, *more):
    """The process of an evaluation."""
    command = [*launcher, str(ROOT / "launch" / "eval.py"), "--model", str(models / "a"), *SETTINGS]
    command += ["--output_dir", str(out), *more]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )


def kill(process):
    """SIGKILL to the launcher and its workers, which it puts into sessions of their own."""
    launcher = psutil.Process(process.pid)
    for one in [launcher, *launcher.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()


def wait(process):
    """What the process printed; it does not outlive the test."""
    try:
        return process.communicate(timeout=900)[0]
    finally:
        if process.poll() is None:
            kill(process)


def finish(launcher, models, out, *more):
    """results.json and the lines of the records of the model."""
    process = start(launcher, models, out, *more)
    printed = wait(process)
    assert process.returncode == 0, printed[-3000:]
    return json.loads((out / "results.json").read_text()), (out / "model" / "demo.jsonl").read_text().splitlines()


def bare(lines):
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def models(tmp_path_factory, tokenizer):
    from rl_distill.config import TinyModelConfig
    from rl_distill.demo.tiny import make_model

    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate("ab"):
        make_model(TinyModelConfig(32, 64, 2, 4), tokenizer, seed).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def whole(models):
    """An evaluation by one process, without any launcher."""
    return finish([sys.executable], models, models / "one", "--compare", f"teacher={models / 'b'}")


def test_one_and_two_processes_give_the_same(models, whole):
    results, lines = finish(TWO, models, models / "two", "--compare", f"teacher={models / 'b'}")
    assert (results["num_processes"], whole[0]["num_processes"]) == (2, 1)
    assert len(lines) == 48
    assert bare(lines) == bare(whole[1])
    assert results["tasks"] == whole[0]["tasks"]
    assert results["tasks"]["demo"]["gold_answers_correct"] == 24
    assert set(results["tasks"]["demo"]["models"]["teacher"]["metrics"]) == {"accuracy", "pass@1", "pass@2"}


@pytest.mark.slow
def test_after_kill_9_of_two_processes_one_goes_on_and_keeps_what_was_made(models, whole):
    out = models / "killed"
    process = start(TWO, models, out)
    parts = lambda: [line for path in sorted(out.glob("model/*.part-*")) for line in path.read_text().splitlines()]  # noqa: E731
    deadline = time.monotonic() + 300
    while len(parts()) < 8 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    kill(process)
    printed, _ = process.communicate(timeout=60)
    made = parts()
    assert 8 <= len(made) < 48, printed[-3000:]
    _, lines = finish([sys.executable], models, out)
    assert bare(lines) == bare(whole[1])
    assert set(made) <= set(lines)  # seconds included: they were not made again


@pytest.mark.slow
def test_speed_overlap_with_training_data_and_the_page_of_an_evaluation(models, tmp_path):
    from rl_distill.demo.problems import make_problems

    prompt = make_problems("test", 1000, 0, math_share=0.7)[3].prompt
    train = tmp_path / "train.jsonl"
    train.write_text(json.dumps({"prompt": "Quite another text."}) + "\n" + json.dumps({"prompt": prompt}) + "\n")
    words = ["--compare", f"teacher={models / 'b'}", f"baseline={models / 'b'}"]
    results, _ = finish(
        [sys.executable], models, tmp_path / "out", *words, "--decontaminate", str(train), "--speed", "2"
    )
    found = results["tasks"]["demo"]["decontamination"]
    assert (found["num_problems"], found["num_training_texts"]) == (24, 2)
    assert found["num_overlapping"] >= 1
    assert results["tasks"]["demo"]["gap_recovered"]["value"] is None  # baseline and teacher are one model
    assert results["comparisons"]["teacher"]["compression_parameters"] == 1.0
    assert results["comparisons"]["teacher"]["speedup_tokens_per_second"] > 0
    report = subprocess.run([sys.executable, "-m", "rl_distill.cli", "report", str(tmp_path / "out")], cwd=ROOT)
    assert report.returncode == 0
    assert "Against teacher" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "words", "message"),
    [
        ([*LAUNCH, "--cpu", "--num_processes", "2"], [], "with --multi_gpu instead of --cpu it starts all of them"),
        ([sys.executable], ["--compare", "x=/nowhere/at/all"], "error: x: '/nowhere/at/all' cannot be loaded"),
        ([sys.executable], ["--max_new_tokens", "500"], "more than the 512 positions of the model"),
        ([sys.executable], ["--decontaminate", "/nowhere.jsonl"], "error: /nowhere.jsonl cannot be read"),
    ],
    ids=["processes", "model", "length", "training data"],
)
def test_what_cannot_be_is_told_in_one_line(models, tmp_path, launcher, words, message):
    process = start(launcher, models, tmp_path / "out", *words)
    printed = wait(process)
    assert process.returncode != 0
    line = next((line for line in printed.splitlines() if line.startswith("error:")), printed)
    assert message in line
    assert not (tmp_path / "out" / "results.json").exists()
