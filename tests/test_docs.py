"""What the documentation names exists: settings, commands, files; the settings page has every setting."""

import importlib.util
import re
from pathlib import Path

import pytest

from rl_distill.cli import COMMANDS
from rl_distill.config import RunConfig
from rl_distill.config.command_line import describe
from rl_distill.reward_model.settings import RewardModelRunConfig

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), *(ROOT / "examples").glob("*.py")])
SETTINGS = set(re.findall(r"^  ([a-z_.0-9]+) =", describe(RewardModelRunConfig), re.MULTILINE))
SECTIONS = {name.rpartition(".")[0] for name in SETTINGS if "." in name}
DOTTED = re.compile(
    r"(?:`|--|\")((?:" + "|".join(sorted({s.split(".")[0] for s in SECTIONS})) + r")\.[a-z_0-9.]*[a-z0-9])"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_a_page_names_exists(page):
    named = {name for name in DOTTED.findall(page.read_text()) if not name.endswith((".yaml", ".py", ".md", ".json"))}
    modules = {
        name for name in named if (ROOT / "rl_distill" / name.split(".")[0] / f"{name.split('.')[1]}.py").exists()
    }
    assert named - modules <= SETTINGS | SECTIONS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists(page):
    named = set(re.findall(r"(?:^|`)rl-distill ([a-z][a-z-]*)", page.read_text(), re.MULTILINE))
    assert named <= {command.name for command in COMMANDS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()) if page.suffix == ".md" else []
    generated = {"reference/config.md"}
    assert [link for link in links if not (page.parent / link).exists() and link not in generated] == []


def rows_of_architecture() -> list[list[str]]:
    """The cells of every table row."""
    lines = (ROOT / "docs" / "architecture.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]


def test_architecture_lists_every_package_and_module_of_the_top_level():
    named = {name for row in rows_of_architecture() for name in re.findall(r"[\w/]+(?:\.py)?", row[0])}
    packages = {path.parent.name + "/" for path in (ROOT / "rl_distill").glob("*/__init__.py")}
    modules = {path.name for path in (ROOT / "rl_distill").glob("*.py")} - {"__init__.py"}
    assert packages <= named
    assert {module for module in modules if not {module, module.removesuffix(".py")} & named} == set()


def test_architecture_lists_every_folder_within_a_package():
    text = (ROOT / "docs" / "architecture.md").read_text()
    for init in (ROOT / "rl_distill").glob("*/*/__init__.py"):
        assert f"`{init.parent.name}/`" in text, init.parent


def test_architecture_lists_every_command_and_files_that_exist():
    rows = [row for row in rows_of_architecture() if len(row) == 3]
    assert [row[0].strip("`") for row in rows if row[0].strip("`") not in {c.name for c in COMMANDS}] == []
    assert len(rows) == len(COMMANDS)
    for row in rows:
        for file in re.findall(r"`([\w/]+\.py)`", f"{row[1]} {row[2]}"):
            assert any((ROOT / base / file).is_file() for base in ("", "rl_distill", "rl_distill/cli")), file


def test_the_settings_page_has_every_setting():
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    shown = set(re.findall(r"^\| `([a-z_.0-9]+)` \|", hooks.settings_page(), re.MULTILINE))
    assert shown == SETTINGS
    assert set(re.findall(r"^  ([a-z_.0-9]+) =", describe(RunConfig), re.MULTILINE)) < SETTINGS
