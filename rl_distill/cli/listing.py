"""`rl-distill list rewards|tasks|configs|models`: what can be named in a config or on a command line.

Reads tables and folders only; no network.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import yaml

from ..errors import OneLineParser

Rows = Iterator[tuple[str, str]]


def main(argv: Sequence[str]) -> int:
    parser = OneLineParser(prog="rl-distill list", description="Lists what a config can name.")
    parser.add_argument(
        "what",
        choices=list(LISTS),
        help="models: families known to work, then those in ./runs and in the Hugging Face cache",
    )
    rows = list(LISTS[parser.parse_args(list(argv)).what]())
    width = max((len(name) for name, _ in rows), default=0)
    try:
        print("\n".join(f"{name.ljust(width)}  {text}".rstrip() for name, text in rows) or "none found", flush=True)
    except BrokenPipeError:  # `| head`; what Python still holds would fail once more when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def rewards() -> Rows:
    """Reward functions with the first line of their documentation."""
    from reward_models.registry import SHORT_NAMES

    for name, (module, function) in SHORT_NAMES.items():
        yield name, first_line(f"reward_models.{module}", function)


def tasks() -> Rows:
    from ..tasks.base import SHORT_NAMES

    for name, (module, function) in SHORT_NAMES.items():
        yield name, first_line(module, function)


def configs() -> Rows:
    """Packaged configs with the first sentence of their opening comment."""
    from ..config.command_line import shipped_config

    for path in sorted(shipped_config("").glob("*.yaml")):
        yield path.stem, comment_of(path)
    for path in sorted(shipped_config("accelerate").glob("*.yaml")):
        yield f"--launch {path.stem}", comment_of(path)


def models() -> Rows:
    """Families known to work, folders with a model below ./runs, and models of the Hugging Face cache."""
    from ..models.families import FAMILIES

    for name, family in FAMILIES.items():
        note = f"not supported: it {family.refused}" if family.refused else family.note
        yield name, f"{family.examples}{f' ({note})' if note else ''}"
    yield from local_models()


def local_models() -> Rows:
    """Folders with a model below ./runs, then models of the Hugging Face cache."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    for path in sorted(Path("runs").glob("**/config.json")):
        if "checkpoint-" not in str(path):
            yield str(path.parent), architecture_of(path)
    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return
    for repo in sorted(repos, key=lambda repo: repo.repo_id):
        if repo.repo_type == "model":
            yield repo.repo_id, f"{repo.size_on_disk_str}B in the Hugging Face cache"


LISTS: dict[str, Callable[[], Rows]] = {"rewards": rewards, "tasks": tasks, "configs": configs, "models": models}


def first_line(module: str, function: str) -> str:
    """First line of a function's or class's docstring, read from the source so that nothing heavy is imported."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    for node in ast.parse(Path(spec.origin).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == function:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def comment_of(path: Path) -> str:
    """The first sentence of the comment that opens a YAML file."""
    lines = path.read_text().splitlines()
    opening = lines[: next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))]
    text = " ".join(line.lstrip("# ") for line in opening)
    return text.partition(". ")[0].rstrip(".")


def architecture_of(path: Path) -> str:
    try:
        names = yaml.safe_load(path.read_text()).get("architectures") or []
    except (yaml.YAMLError, AttributeError):
        return "unreadable config.json"
    return ", ".join(names)
