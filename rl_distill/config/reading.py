"""From YAML files and words of a command line to frozen dataclasses, by their type hints.

Knows nothing of what the settings mean. Imports without torch. A wrong key names the nearest one.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, Literal

import yaml

from ..errors import UserError
from .ranges import range_of


class ConfigError(UserError, ValueError):
    """A setting is wrong; the message is one line that says which and what to do."""


class Word(str):
    """A value from the command line as it was typed: what it means depends on the setting's type."""


def parse_override(text: str) -> Word:
    """A command-line value; `convert` reads it once it knows what the setting is."""
    return Word(text)


def read_word(word: Word, hint: Any, name: str) -> Any:
    """The word read as YAML, so that 1e-4, true, null and [a, b] mean what they say; a text setting takes it as it is.

    "Q: {prompt}" is a mapping to YAML, and the text that was meant to a setting of type str.
    """
    arms = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    try:
        value = yaml.safe_load(word)
    except yaml.YAMLError as error:
        if str in arms:
            return str(word)
        raise ConfigError(f"{name}: {str(word)!r} is not valid YAML: {' '.join(str(error).split())[:150]}") from error
    if str in arms:
        is_list = isinstance(value, list) and any(typing.get_origin(arm) is tuple for arm in arms)
        is_quoted = isinstance(value, str) and word[:1] in ("'", '"')
        return value if value is None or is_list or is_quoted else str(word)
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 reads 1e-4 as text
        except ValueError:
            return value
    return value


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping: YAML takes the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} stands there twice; keep one", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_file(path: Path, *, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The settings of a YAML file on top of those of its `base`; `above`: the files that it is a base of."""
    if path.is_dir():
        raise ConfigError(f"config file {str(path)!r} is a folder; give a YAML file in it")
    if not path.is_file():
        raise ConfigError(f"config file {str(path)!r} does not exist" + (f" (base of {above[-1]})" if above else ""))
    if path.resolve() in above:
        raise ConfigError(f"config file {str(path)!r} is its own base; take the line `base:` out of one of the files")
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a YAML file in UTF-8 ({error})") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: expected `key: value` lines at the top level")
    base = settings.pop("base", None)
    if base is None:
        return settings
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: expected the name of a YAML file, got {base!r}")
    return _merge(read_file(path.parent / base, above=(*above, path.resolve())), settings)


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def set_dotted(settings: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        child = settings.get(parent)
        settings[parent] = dict(child) if isinstance(child, dict) else {}
        settings = settings[parent]
    settings[last] = value


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """A hint for a wrong name: the nearest known one, or the list of all."""
    known = sorted(known)
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {match[0]!r}?" if match else f"known: {', '.join(known)}"


def build(cls: type, settings: dict[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(cls)
    for key in settings:
        if key not in hints:
            raise ConfigError(f"unknown setting {prefix + str(key)!r}; {nearest(str(key), hints)}")
    return cls(**{key: convert_field(cls, key, value, prefix + key) for key, value in settings.items()})


def convert_field(cls: type, key: str, value: Any, name: str) -> Any:
    """The value as the field `key` of a settings class holds it; ConfigError on a wrong type or outside its range."""
    converted = convert(typing.get_type_hints(cls)[key], value, name)
    allowed = range_of(next(field for field in dataclasses.fields(cls) if field.name == key))
    if allowed is not None and converted is not None and converted not in allowed:
        raise ConfigError(f"{name} must be {allowed}, not {value}")
    return converted


# Why not a library: what a user typed has to be told back by the setting's dotted name, words of the command line are
# read by the type they are for ("1e-3" a number, "null" None), and unions are tried in the order that surprises least.
# Example: hint `tuple[str, ...] | str | None`, value ["a", "b"] -> ("a", "b"); value "a" -> "a".
def convert(hint: Any, value: Any, name: str) -> Any:
    if isinstance(value, Word):
        value = read_word(value, hint, name)
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in typing.get_args(hint):
            return None
        arms = [arm for arm in typing.get_args(hint) if arm is not type(None)]
        lists = [arm for arm in arms if typing.get_origin(arm) is tuple]
        if lists and isinstance(value, list | tuple):
            return convert(lists[0], value, name)
        fitting = (arm for arm in arms if isinstance(value, typing.get_origin(arm) or arm))
        return convert(next(fitting, arms[0]) if len(arms) > 1 else arms[0], value, name)
    if origin is Literal:
        choices = typing.get_args(hint)
        if isinstance(value, bool) and "off" in choices:  # YAML 1.1 reads on and off as booleans
            value = "on" if value else "off"
        if value not in choices:
            raise ConfigError(f"{name}: {value!r} is not one of {', '.join(map(str, choices))}")
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, list | tuple):
            raise ConfigError(f"{name}: expected a list, got {value!r}")
        return tuple(convert(typing.get_args(hint)[0], item, f"{name}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{name}: expected settings (key: value lines), got {value!r}")
        return build(typing.cast(type, hint), value, name + ".")
    return _scalar(hint, value, name)


def _scalar(hint: Any, value: Any, name: str) -> Any:
    kind = origin if (origin := typing.get_origin(hint)) else hint
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):  # told below
            pass
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{name}: expected {kind.__name__}, got {value!r}")
    return value


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
