"""Imports go down only, a package above everything it imports; files and functions stay small."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = (
    ("sandboxes",),
    ("reward_models",),
    ("errors",),
    ("types", "files", "timing", "provenance"),
    ("progress",),
    ("maths", "config"),
    ("distributed",),
    ("stage_cache", "parquet_shards", "hf_training"),
    ("models",),
    ("generation",),
    ("teachers", "tasks", "data"),
    ("startup",),
    ("distill", "students"),
    ("ppo",),
    ("evals",),
    ("demo", "data_preparation"),
    ("run_setup", "mining"),
    ("reporting",),
    ("export",),
    ("reward_model",),
    ("student_stages",),
    ("serving",),
    ("doctor", "pipeline"),
    ("api", "cli"),
    ("launch",),
)
LAYER = {package: level for level, packages in enumerate(LAYERS) for package in packages}
TORCH_FREE = ("config/schema", "config/reading", "config/checks", "config/loading", "config/command_line")
TORCH_FREE += ("config/training", "config/ranges", "config/reference", "errors")
TORCH_FREE += ("config/model_facts", "config/own_defaults", "config/sampling", "config/distillation")
TORCH_FREE += ("types", "files", "provenance", "evals/command_line", "reward_model/settings")
TORCH_FREE += ("students/shape", "students/command", "export/command")
TORCH_FREE += ("data_preparation/command", "mining/command", "mining/rounds_command", "mining/decisions")
TORCH_FREE += ("serving/settings", "serving/command", "serving/ab/sequential", "serving/ab/routing")
TORCH_FREE += tuple(f"cli/{path.stem}" for path in (ROOT / "rl_distill" / "cli").glob("*.py"))
MAX_FILE_LINES, MAX_P95_FUNCTION_LINES, MAX_FILES_IN_FOLDER = 400, 30, 12
MAX_COMMANDS = 20  # `cli` has one file for each sub-command


def package_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "rl_distill" and len(parts) > 1 else parts[0]


def imported_packages(path: Path) -> set[str]:
    """The packages whose modules this file imports at its top level or inside functions."""
    here = path.relative_to(ROOT).parent.parts
    packages = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else ()
            module = ".".join((*base, node.module or "")).strip(".")
            names = [f"{module}.{alias.name}" if module == "rl_distill" else module for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "rl_distill":
                packages.update(parts[1:2])
            elif parts[0] in ("sandboxes", "reward_models"):
                packages.add(parts[0])
    return packages


FILES = [
    p for top in ("sandboxes", "reward_models", "rl_distill", "launch") for p in sorted((ROOT / top).rglob("*.py"))
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path):
    here = package_of(path)
    if here == "__init__":
        return
    for there in imported_packages(path) - {here, "__init__"}:
        assert LAYER[there] < LAYER[here], f"{here} imports {there}, which is not below it"


@pytest.mark.parametrize("name", TORCH_FREE)
def test_what_answers_before_torch_imports_none(name):
    for node in ast.parse((ROOT / "rl_distill" / f"{name}.py").read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not {n.split(".")[0] for n in names} & {"torch", "transformers", "trl", "datasets"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_grows_too_long(path):
    assert path.read_text().count("\n") <= MAX_FILE_LINES


def test_every_package_has_its_folder_of_tests():
    packages = {path.parent.name for path in (ROOT / "rl_distill").glob("*/__init__.py")}
    tested = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert packages | {"sandboxes", "reward_models"} <= tested


def test_functions_stay_short():
    functions = [
        node.end_lineno - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert sorted(functions)[int(len(functions) * 0.95)] <= MAX_P95_FUNCTION_LINES


def test_folders_stay_small():
    for folder in {path.parent for path in FILES if ROOT / "rl_distill" in path.parents}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= (MAX_COMMANDS if folder.name == "cli" else MAX_FILES_IN_FOLDER), folder
