"""Imports go down only: sandboxes < reward_models < maths < world < acting < learning < doors."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "sandboxes": 0,
    "reward_models": 1,
    **dict.fromkeys(("config", "config_reading", "config_checks", "types", "files"), 2),
    **dict.fromkeys(("masking", "batching", "timing"), 2),
    **dict.fromkeys(("advantages", "kl", "losses", "logprobs", "lm_head", "tiled_logprobs"), 2),
    **dict.fromkeys(("tasks", "models", "teachers", "distributed", "anchor", "sft", "memory"), 3),
    **dict.fromkeys(("generation", "compat", "assembly", "rollout", "rollout_metrics", "completions_log"), 4),
    **dict.fromkeys(("minibatches", "uneven", "checkpoint", "data"), 4),
    **dict.fromkeys(("trainer", "training_arguments", "callbacks", "evaluation", "solving"), 5),
    **dict.fromkeys(("evals", "reporting", "html_report", "report", "worlds", "pipeline", "doctor", "arguments"), 6),
    **dict.fromkeys(("reward_settings", "reward_data", "reward_training", "reward_report", "reward_refresh"), 6),
    **dict.fromkeys(("cli", "launch"), 7),
}
ALLOWED_UP = {
    ("teachers", "generation"),  # a teacher writes texts with the student's generation
    ("rollout", "worlds"),
}
TORCH_FREE = ("config", "config_reading", "config_checks", "types", "files", "arguments", "reward_settings", "cli")


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "rl_distill" and len(parts) > 1 else parts[0]


def imported_rooms(path: Path) -> set[str]:
    """The rooms whose modules this file imports at its top level or inside functions."""
    package = path.relative_to(ROOT).parent.parts
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, node.module or "")).strip(".")
            names = [f"{module}.{alias.name}" if module == "rl_distill" else module for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "rl_distill":
                rooms.update(parts[1:2])
            elif parts[0] in ("sandboxes", "reward_models"):
                rooms.add(parts[0])
    return rooms


FILES = [
    p for top in ("sandboxes", "reward_models", "rl_distill", "launch") for p in sorted((ROOT / top).rglob("*.py"))
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path):
    here = room(path)
    if here == "__init__":
        return
    assert here in FLOORS, f"give {here} a floor"
    for there in imported_rooms(path) - {here, "__init__"}:
        assert there in FLOORS, f"give {there} a floor"
        assert FLOORS[there] <= FLOORS[here] or (here, there) in ALLOWED_UP, f"{here} imports {there}, a floor above"


@pytest.mark.parametrize("name", TORCH_FREE)
def test_what_answers_before_torch_imports_none(name):
    path = ROOT / "rl_distill" / f"{name}.py"
    if not path.exists():
        pytest.skip(f"no {name}.py")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not {n.split(".")[0] for n in names} & {"torch", "transformers", "trl", "datasets"}
