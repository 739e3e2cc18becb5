"""Pages that are generated when the site is built: every setting from its dataclass, and the benchmarks' own pages.

Also turns links to files outside docs/ into links to those pages, or into plain text where a file is not on the site.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from rl_distill.config import RunConfig  # noqa: E402
from rl_distill.reward_model.settings import RewardModelRunConfig  # noqa: E402

INTRO = """# Every setting

Generated from the dataclasses of `rl_distill/config/schema.py`. In a YAML file sections are nested; on the command line
names are dotted: `--ppo.num_steps 200`. Steps are PPO steps unless a setting says otherwise.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    files.append(File.generated(config, "reference/config.md", content=settings_page()))
    for path in sorted((ROOT / "benchmarks").glob("*.md")):
        files.append(File.generated(config, f"benchmarks/{path.name}", content=path.read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    markdown = markdown.replace("](../docs/", "](../").replace("](../benchmarks/", "](benchmarks/")
    return re.sub(r"\[([^\]]+)\]\(\.\./(?:examples|configs|rl_distill|README|CONTRIBUTING)[^)]*\)", r"\1", markdown)


def settings_page() -> str:
    """A table for each section: name, type, default, range, and what the string below the field says."""
    sections = [("run", RunConfig, ""), ("reward_model", RewardModelRunConfig, "reward_model.")]
    seen: set[str] = set()
    parts = [INTRO]
    for title, cls, only in sections:
        for prefix, section in walk(cls):
            if prefix.startswith(only) and prefix not in seen:
                seen.add(prefix)
                parts.append(table(prefix.rstrip(".") or title, prefix, section))
    return "\n".join(parts)


def walk(cls: type, prefix: str = "") -> Iterator[tuple[str, type]]:
    """(prefix, dataclass) of the class and of every section in it."""
    yield prefix, cls
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        inner = section_of(hints[field.name])
        if inner is not None:
            yield from walk(inner, f"{prefix}{field.name}.")


def section_of(hint: object) -> type | None:
    return next((part for part in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(part)), None)


def table(title: str, prefix: str, cls: type) -> str:
    hints, meanings = typing.get_type_hints(cls), strings_below(cls)
    rows = ["| setting | type | default | range | meaning |", "|---|---|---|---|---|"]
    for field in dataclasses.fields(cls):
        if section_of(hints[field.name]) is None:
            cells = (f"`{prefix}{field.name}`", f"`{spelled(hints[field.name])}`", f"`{default_of(field)!r}`")
            rest = (str(field.metadata.get("range", "")), meanings.get(field.name, ""))
            rows.append("| " + " | ".join(map(escaped, (*cells, *rest))) + " |")
    about = inspect.cleandoc(cls.__doc__ or "")
    return f"\n## {title}\n\n{about}\n\n" + ("\n".join(rows) if len(rows) > 2 else "") + "\n"


def strings_below(cls: type) -> dict[str, str]:
    """By field: the string that stands below it in the source, as one line."""
    body = typing.cast(ast.ClassDef, ast.parse(inspect.getsource(cls)).body[0]).body
    pairs = [(field, below) for field, below in itertools.pairwise(body) if isinstance(field, ast.AnnAssign)]
    return {
        ast.unparse(field.target): " ".join(str(ast.literal_eval(below.value)).split())
        for field, below in pairs
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }


def default_of(field: dataclasses.Field) -> object:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def spelled(hint: object) -> str:
    return re.sub(r"<class '(\w+)'>", r"\1", str(hint)).replace("typing.", "")


def escaped(text: str) -> str:
    return text.replace("|", "&#124;") if not text.startswith("`") else text.replace("|", "\\|")
