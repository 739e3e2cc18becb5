"""A program ends in one line: the user's mistakes with status 2, faults with a traceback in a file, Ctrl-C with 130."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reward_models import RewardError
from rl_distill import errors
from rl_distill.config import ConfigError

ROOT = Path(__file__).parents[1]


def ending(error, capsys):
    """(exit status, what stderr says) of a program that raises the error."""

    @errors.errors_in_one_line()
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr().err


@pytest.mark.parametrize("kind", [ConfigError, RewardError])
def test_a_users_mistake_is_one_line_and_status_2(kind, capsys):
    assert ending(kind("data.train: no such file; give its path"), capsys) == (
        2,
        "error: data.train: no such file; give its path\n",
    )


def test_a_full_disk_says_what_to_do(capsys):
    code, words = ending(OSError(errno.ENOSPC, "No space left on device", "/runs/x"), capsys)
    assert code == 2
    assert words.startswith("error: no space left on the disk of /runs/x: free some")
    assert words.count("\n") == 1


@pytest.mark.parametrize("number", [errno.ENOTDIR, errno.EISDIR, errno.EEXIST])
def test_a_file_where_a_folder_was_meant_is_the_users_to_put_right(number, capsys):
    code, words = ending(OSError(number, os.strerror(number), "runs/x"), capsys)
    assert (code, words) == (2, f"error: runs/x: {os.strerror(number).lower()}; choose another path\n")


def test_a_fault_keeps_its_traceback_in_the_runs_folder(tmp_path, capsys):
    errors.keep_tracebacks_in(tmp_path)
    code, words = ending(KeyError("lost"), capsys)
    assert (code, words.count("\n")) == (1, 1)
    assert "KeyError: 'lost'" in words
    assert str(tmp_path / "traceback.txt") in words
    assert "Traceback (most recent call last)" in (tmp_path / "traceback.txt").read_text()


def test_ctrl_c_is_no_error(capsys):
    assert ending(KeyboardInterrupt(), capsys) == (130, "interrupted\n")


def test_debug_prints_the_traceback_too(monkeypatch, capsys):
    monkeypatch.setenv("RLD_DEBUG", "1")
    code, words = ending(ConfigError("wrong"), capsys)
    assert code == 2
    assert "Traceback (most recent call last)" in words
    assert words.endswith("wrong\n")


def test_other_ranks_end_quietly(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert ending(ConfigError("wrong"), capsys) == (2, "")


def test_of_two_processes_one_speaks_and_both_end(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "from rl_distill import distributed\n"
        "from rl_distill.config import ConfigError\n"
        "from rl_distill.errors import errors_in_one_line\n"
        "@errors_in_one_line()\n"
        "def main():\n"
        "    distributed.start(timeout_s=8)\n"
        "    if distributed.rank() == 1:\n"
        "        raise ConfigError('only rank 1 sees it: do this')\n"
        "    distributed.barrier()\n"
        "main()\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert done.stderr.count("error: only rank 1 sees it: do this") == 1
    assert "ConfigError" not in done.stderr
