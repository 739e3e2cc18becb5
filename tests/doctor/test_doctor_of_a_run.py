"""The doctor on a run's own settings: what the run would ask, its data as the run reads it, and this machine."""

import json
import re
import subprocess
import sys

import pytest
import torch

from rl_distill.cli import main
from rl_distill.doctor import diagnosis, memory, speed
from rl_distill.types import Problem

ROWS = [{"question": f"{i} and {i}?", "answer": str(2 * i), "subject": "sums"} for i in range(8)]


@pytest.fixture
def run_file(tmp_path, make_policy, tokenizer):
    """A run of two models that are sure of themselves, on rows with columns of the user's own."""
    for name, seed in (("student", 0), ("teacher", 1)):
        model = make_policy(seed)
        with torch.no_grad():
            model.model.norm.weight.mul_(20.0)
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)

    def write(rows=ROWS, **settings):
        (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        everything = {
            "demo": None,
            "output_dir": str(tmp_path / "run"),
            "student": {"model": str(tmp_path / "student")},
            "teacher": {"model": str(tmp_path / "teacher")},
            "data": {"train": str(tmp_path / "train.jsonl"), "prompt_template": "Q: {question}\nA:"},
            "rewards": [{"fn": "math_answer", "weight": 1.0}],
            "generation": {"max_completion_length": 16},
            "ppo": {"batch_size": 16},
        } | settings
        path = tmp_path / "run.yaml"
        path.write_text(json.dumps(everything))  # JSON is YAML
        return str(path)

    return write


def test_a_runs_own_columns_and_template_are_used_and_progress_is_shown(run_file, capsys):
    assert main(["doctor", "--config", run_file()]) == 0
    text = capsys.readouterr().out
    for line in ("[checks] what the run itself", "[student] every weight", "gold answers: all", "Nothing stands"):
        assert line in text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rewards": [{"fn": "exact_match", "weight": 1.0}, {"fn": "rouge_l", "weight": 1.0}]}, "teacher_output"),
        ({"generation": {"max_completion_length": 100_000}}, "positions"),
        ({"data": {"train": "/nowhere/train.jsonl"}}, "/nowhere/train.jsonl"),
    ],
)
def test_what_would_stop_the_run_is_found(run_file, capsys, settings, words):
    assert main(["doctor", "--config", run_file(**settings)]) == 1
    assert any("BAD" in line and words in line for line in capsys.readouterr().out.splitlines())


def test_all_findings_of_the_run_are_told_at_once(run_file, capsys, tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be")
    settings = {"teacher": {"model": str(tmp_path / "missing")}}
    assert main(["doctor", "--config", run_file(**settings)]) == 1
    bad = [line for line in capsys.readouterr().out.splitlines() if line.startswith("BAD")]
    assert len(bad) == 2


def test_the_sources_of_a_mixture_are_examined(run_file, capsys, tmp_path):
    source = {"train": str(tmp_path / "train.jsonl"), "task": "sums", "share": 1.0}
    path = run_file(data={"mixture": [source], "prompt_template": "Q: {question}\nA:"})
    assert main(["doctor", "--config", path]) == 0
    assert "gold answers: all" in capsys.readouterr().out


def test_a_cpu_machine_is_measured(run_file, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    main(["doctor", "--config", run_file()])
    text = capsys.readouterr().out
    assert "this machine: no GPU" in text
    assert "in a step of 16 full-length completions" in text
    assert "memory on this machine: about" in text


def test_the_speed_of_products_is_that_of_a_stopwatch():
    a = torch.randn(speed.SIZE, speed.SIZE)
    import time

    times = []
    for _ in range(20):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    assert speed.matmul_flops(torch.float32) == pytest.approx(2 * speed.SIZE**3 / min(times), rel=0.8)


def test_arithmetic_of_a_step_by_hand():
    from rl_distill.config import load_config

    shape = memory.Shape(1000, 8, 16, 1, 8, 32)
    teacher = memory.Shape(3000, 8, 16, 1, 8, 32)
    run = load_config(None, {"ppo.batch_size": 4, "ppo.num_epochs": 2})
    plan = memory.Plan(prompt_length=6, completion_length=4)
    # 40 tokens: student samples (2) and is scored (2), learns twice (12); teacher scores (2)
    assert speed.step_flops(shape, teacher, plan, run) == 40 * (16 * 1000 + 2 * 3000)
    remote = memory.Plan(prompt_length=6, completion_length=4, placement="remote")
    assert speed.step_flops(shape, teacher, remote, run) == 40 * 16 * 1000


def test_a_run_that_does_not_fit_into_what_is_free_is_told_with_advice():
    shape = memory.Shape(10**9, 2048, 8192, 16, 512, 50_000)
    machine = speed.Machine(2, 2, 8.0 * memory.GIB, 4.0 * memory.GIB, 1e11, 1e11)
    found = speed.memory_finding(machine, shape, shape, memory.Plan())
    assert (found.level, "4.0 of 8.0 GiB are free" in found.detail, "gradient_checkpointing" in found.do) == (
        "bad",
        True,
        True,
    )


def test_threads_of_the_doctor_do_not_spin(run_file):
    code = (
        "import os, sys; from rl_distill.cli import main; main(['doctor', '--config', sys.argv[1]]);"
        "print('policy', os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code, run_file()], capture_output=True, text=True, check=True, env=environment
    )
    assert "policy PASSIVE" in done.stdout


def test_what_is_wrong_with_a_later_entry_of_a_mixture_is_found(run_file, capsys, tmp_path):
    """The first entry has more rows than are looked at of one source."""
    for name, answers in (("good", [str(2 * i) for i in range(30)]), ("bad", [" "] * 12)):
        rows = [{"question": f"{name} {i} and {i}?", "answer": answer} for i, answer in enumerate(answers)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entries = [{"train": str(tmp_path / f"{name}.jsonl"), "task": name, "share": 1.0} for name in ("good", "bad")]
    path = run_file(data={"mixture": entries, "prompt_template": "Q: {question}\nA:"})
    assert main(["doctor", "--config", path]) == 1
    text = capsys.readouterr().out
    assert re.search(r"data\.mixture\[1\] \(bad\): (\d+) of \1 gold answers cannot be read", " ".join(text.split()))
    assert "data.mixture[0]" not in text


def test_problems_of_all_sources_stand_first():
    given = [
        Problem("t", str(i), f"{source} {i}", source=source) for source, n in (("a", 5), ("b", 2)) for i in range(n)
    ]
    assert [p.prompt for p in diagnosis.in_turn(given)] == ["a 0", "b 0", "a 1", "b 1", "a 2", "a 3", "a 4"]
