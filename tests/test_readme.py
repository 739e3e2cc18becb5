"""README and its Chinese translation have the same commands, numbers and links, and what they name exists."""

import re
from pathlib import Path

import pytest
import yaml

from rl_distill.cli import COMMANDS
from rl_distill.config import load_config
from rl_distill.config.command_line import config_path

ROOT = Path(__file__).parents[1]
ENGLISH, CHINESE = (ROOT / "README.md").read_text(), (ROOT / "README.zh-CN.md").read_text()
FENCE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, code without comments) of every fenced block."""
    found = []
    for language, code in FENCE.findall(text):
        lines = [re.sub(r"\s*#.*$", "", line).rstrip() for line in code.splitlines()]
        found.append((language, "\n".join(line for line in lines if line)))
    return found


def numbers(text: str) -> list[list[str]]:
    """The numbers of every section, sorted, outside code blocks and links."""
    text = re.sub(r"\]\([^)]*\)", "]", FENCE.sub("", text))
    return [sorted(re.findall(r"\d[\d,.]*\d|\d", section)) for section in re.split(r"^## ", text, flags=re.MULTILINE)]


def links(text: str) -> set[str]:
    return {link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("README")}


def test_the_translation_has_the_same_code_numbers_and_links():
    assert blocks(CHINESE) == blocks(ENGLISH)
    assert numbers(CHINESE) == numbers(ENGLISH)
    assert links(CHINESE) == links(ENGLISH)


@pytest.mark.parametrize("link", sorted(links(ENGLISH)))
def test_every_link_leads_to_a_file(link):
    assert (ROOT / link.partition("#")[0]).exists()


def test_every_command_and_config_of_the_readme_exists():
    commands = re.findall(r"rl-distill ([a-z-]+)((?: +--?[\w.]+(?: [\w./-]+)?)*)", ENGLISH)
    assert {name for name, _ in commands} <= {command.name for command in COMMANDS}
    assert len(commands) >= 10
    for config in re.findall(r"--config (\w+)", ENGLISH) + re.findall(r'config="(\w+)"', ENGLISH):
        assert config_path(config).is_file()


def test_the_yaml_of_the_readme_is_a_config_of_a_run(tmp_path):
    (code,) = [code for language, code in FENCE.findall(ENGLISH) if language == "yaml"]
    path = tmp_path / "run.yaml"
    path.write_text(code)
    config = load_config(path)
    assert config.student.model == "Qwen/Qwen2.5-0.5B-Instruct"
    assert [entry["fn"] for entry in config.rewards] == [entry["fn"] for entry in yaml.safe_load(code)["rewards"]]


def test_the_readme_shows_every_command():
    (shown,) = [code for language, code in FENCE.findall(ENGLISH) if "rl-distill doctor" in code]
    assert set(re.findall(r"^rl-distill ([a-z-]+)", shown, re.MULTILINE)) == {command.name for command in COMMANDS}


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    code = next(code for language, code in FENCE.findall(ENGLISH) if language == "python")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / "my-student" / "README.md").is_file()
    assert "report.html" in capsys.readouterr().out
