"""What is installed: every package is in the wheel, and the core runs without the extras."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.killable import arguments

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS_ONLY = (
    "deepspeed",
    "tensorboard",
    "matplotlib",
    "mkdocs",
    "gguf",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "torchao",
    "fastapi",
    "uvicorn",
    "prometheus_client",
)
"""Import names of packages that only the extras install."""


def test_every_package_is_listed():
    packages = ("rl_distill", "reward_models", "sandboxes")
    folders = {path.parent for package in packages for path in (ROOT / package).rglob("*.py")}
    expected = {str(folder.relative_to(ROOT)).replace("/", ".") for folder in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == expected | {"rl_distill.configs", "rl_distill.launch"}


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=]", requirement)[0].strip().lower().replace("_", "-")


def test_constraints_name_a_version_of_every_requirement():
    pinned = {name_of(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = {name_of(text) for group in (PROJECT["project"]["dependencies"], *extras) for text in group}
    assert wanted - pinned == {"rl-distill"}


HIDE = f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec

def find_spec(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in {EXTRAS_ONLY} else find(name, path, target)

PathFinder.find_spec = classmethod(find_spec)
"""
"""As sitecustomize.py: this environment as if the packages of the extras were not installed."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the installed wheel, which comes before the checkout, and HIDE."""
    folder, wheels, source = (tmp_path_factory.mktemp(name) for name in ("site", "wheels", "source"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("rl_distill", "reward_models", "sandboxes", "configs", "launch"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip"]
    commands = [
        [*pip, "wheel", "-q", "--no-deps", "-w", str(wheels), str(source)],
        [*pip, "install", "-q", "--no-deps", "--no-index", "--find-links", str(wheels), "--target", str(folder)],
    ]
    subprocess.run(commands[0], check=True, capture_output=True, timeout=300)
    subprocess.run([*commands[1], "rl_distill"], check=True, capture_output=True, timeout=300)
    (folder / "sitecustomize.py").write_text(HIDE)
    return folder


def run(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Python with the wheel in `folder`."""
    environment = os.environ | {"PYTHONPATH": str(site)}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_the_wheel_alone_runs_in_an_empty_folder_without_the_extras(site, tmp_path):
    code = "import importlib.util as u, reward_models, sandboxes, rl_distill; print(rl_distill.__file__)"
    code += f"; assert not any(u.find_spec(name) for name in {EXTRAS_ONLY})"
    imported = run(site, tmp_path, "-c", code)
    assert imported.returncode == 0, imported.stderr
    assert imported.stdout.startswith(str(site))
    words = arguments(Path("run"))
    options = dict(zip(words[::2], words[1::2])) | {"--config": "quick"}
    del options["--report_to"]
    words = [word for option in options.items() for word in option]
    done = run(site, tmp_path, "-m", "rl_distill.cli", "ppo", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "student" / "model.safetensors").is_file()
    assert (tmp_path / "run" / "report.html").is_file()
    assert "rl_distill[report]" in (tmp_path / "run" / "report.md").read_text()


@pytest.mark.slow
def test_without_deepspeed_its_launch_configs_say_what_to_install(site, tmp_path):
    done = run(site, tmp_path, "-m", "rl_distill.cli", "ppo", "--launch", "zero2")
    assert done.returncode == 2
    assert done.stderr == "error: --launch zero2 needs DeepSpeed: pip install 'rl_distill[deepspeed]'\n"
