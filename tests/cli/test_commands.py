"""The console script: help at once, names instead of paths, one line and status 2 for a mistake."""

import importlib.metadata
import importlib.util
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from rl_distill.cli import COMMANDS, main
from rl_distill.cli.starting import launcher_of
from tests.killable import arguments

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "trl", "datasets", "accelerate", "deepspeed"}


def run(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    command = [sys.executable, "-X", "importtime", "-m", "rl_distill.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def heavy_imports(done: subprocess.CompletedProcess) -> set[str]:
    return {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if "|" in line} & HEAVY


def test_every_command_is_listed_and_its_module_exists():
    text = run("--help").stdout
    for command in COMMANDS:
        assert f"  {command.name} " in text
        assert command.help in text
        assert importlib.util.find_spec(command.module) is not None


@pytest.mark.parametrize("name", ["", *(command.name for command in COMMANDS)])
def test_help_needs_no_heavy_import_and_less_than_a_second(name):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run(*name.split(), "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # of CPU: the machine may be busy
    assert done.returncode == 0
    assert "usage: rl-distill" in done.stdout
    assert not heavy_imports(done)
    assert seconds < 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pppo"], "no command 'pppo'; did you mean 'ppo'?"),
        (["ppo", "--config", "gsm8k_qwem"], "did you mean 'gsm8k_qwen'?"),
        (["ppo", "--launch", "zero4"], "--launch zero4: no such file or launch config; did you mean 'zero3'?"),
        (["ppo", "--num_processes", "0"], "--num_processes must be at least 1, not 0"),
        (["ppo", "--num_processes", "two"], "invalid int value: 'two'"),
        (["ppo", "--launch", "ddp", "--ppo.num_step", "3"], "did you mean 'num_steps'?"),
        (["reward-model", "--reward_model.batch_size", "0"], "reward_model.batch_size must be at least 1"),
        (["doctor"], "--student, --teacher, --data not given; give --config FILE"),
        (["doctor", "--config", "demo"], "there is nothing to examine"),
        (["report", "nowhere"], "nowhere"),
        (
            ["report", "here", "--ot", "x"],
            "unrecognized arguments: --ot x; did you mean '--out'?; see rl-distill report",
        ),
        (["ppo", "--confg", "quick"], "unknown option --confg; did you mean '--config'?"),
        (["ppo", "--lauch", "zero2"], "unknown option --lauch; did you mean '--launch'?"),
        (["ppo", "--dry_runn"], "unknown option --dry_runn; did you mean '--dry_run'?"),
        (["ppo", "--seed", "1.5"], "argument --seed: invalid int value: '1.5'; see rl-distill ppo --help"),
        (["ppo", "--student.model", "mine"], "student.model would be ignored, because the demo makes models"),
        (["eval", "--model", "x"], "the following arguments are required: --tasks; see rl-distill eval --help"),
        (["eval", "--model", "x", "--tasks", "gsm9k"], "no task is called 'gsm9k'; did you mean 'gsm8k'?"),
        (
            ["eval", "--model", "x", "--tasks", "./no.py:make"],
            "task ./no.py:make: there is no file no.py (looked for /",
        ),
        (["export", "x", "--out", "y", "--format", "h5"], "argument --format: invalid choice: 'h5' (choose from"),
        (["prepare-data", "README.md", "--out", "README.md"], "README.md"),
        (["load-test", "http://127.0.0.1:1", "--rates", "fast"], "--rates fast: write numbers with commas between"),
        (["load-test", "http://127.0.0.1:1", "--prompts", "no.txt"], "--prompts no.txt: there is no such file"),
        (["load-test", "http://127.0.0.1:1", "--out", "README.md"], "--out README.md is a file; name a folder"),
        (["check-sandbox", "--slots", "0"], "num_slots must be at least 1"),
        (["check-sandbox", "--tier", "Z"], "argument --tier: invalid choice: 'Z'"),
        (["list", "rewrds"], "argument what: invalid choice: 'rewrds'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words, message):
    done = run(*words)
    errors = [line for line in done.stderr.splitlines() if "|" not in line and "WARNING" not in line]
    assert done.returncode == 2
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_an_option_that_no_command_has_is_one_line(command):
    done = subprocess.run(
        [sys.executable, "-m", "rl_distill.cli", command, "--no_such_option", "1"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_the_version_is_that_of_the_package():
    assert run("--version").stdout.strip() == importlib.metadata.version("rl_distill")


def test_launch_becomes_options_of_accelerate():
    zero2 = str(ROOT / "configs" / "accelerate" / "zero2.yaml")
    words = ["--launch", "zero2", "--ppo.num_steps", "3", "--num_processes", "4"]
    assert launcher_of(words) == (["--config_file", zero2, "--num_processes", "4"], ["--ppo.num_steps", "3"])
    assert launcher_of(["--seed", "1"]) == ([], ["--seed", "1"])


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("rewards", "math_answer"),
        ("tasks", "gsm8k"),
        ("configs", "GSM8K with Qwen2.5"),
        ("configs", "--launch zero2"),
        ("models", "runs/mine/student"),
    ],
)
def test_list_prints_what_there_is(what, expected, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "runs" / "mine" / "student"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["Qwen2ForCausalLM"]}')
    monkeypatch.chdir(tmp_path)
    assert main(["list", what]) == 0
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize("what", ["rewards", "tasks"])
def test_every_reward_and_task_is_listed_with_what_it_is(what, capsys):
    main(["list", what])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not re.fullmatch(r"\w+  +\S.*[.:]", line)] == []


def test_a_list_may_be_cut_short():
    process = subprocess.Popen(
        [sys.executable, "-m", "rl_distill.cli", "list", "configs"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    process.stdout.close()
    assert (process.wait(60), process.stderr.read()) == (0, b"")


def test_a_dry_run_in_an_empty_folder_prints_the_plan_and_trains_nothing(tmp_path):
    output = tmp_path / "run"
    done = run("ppo", *arguments(output), "--dry_run", "--config", "quick", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "8 PPO steps, 16 optimizer steps (2 per step)" in done.stdout
    assert "64 completions (8 per step), 1.6 passes over the training rows" in done.stdout  # 64 / 40 rows
    assert "at most 768 sampled" in done.stdout  # 64 completions of 12 tokens
    assert str(output) in done.stdout
    assert not (output / "metrics.jsonl").exists()
    assert not list(output.glob("checkpoint-*"))
