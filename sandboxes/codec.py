"""Typed values as JSON: the only form in which data crosses the boundary between a program and its judge.

None, bool, int, float, complex, str, bytes, list, tuple, dict and sets travel, and so do the types of `values.py`;
subclasses arrive as their base. What else there is stays where it is, behind a number (see `handles.py`).
Decoding is safe for hostile bytes: it builds known types only and raises `ValueError` for everything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import accumulate, count
from operator import sub
from typing import Any

from sandboxes import values

ARGUMENT_DEPTH = 1000
"""How deeply the arguments of a job's calls may be nested."""

TAG_TUPLE, TAG_SET, TAG_FROZENSET, TAG_DICT, TAG_BYTES, TAG_COMPLEX, TAG_INT = "t", "s", "f", "d", "b", "c", "i"
TAG_VALUE, TAG_KEPT, TAG_ARGUMENT = "v", "k", "r"  # a value type; an object that stays; a container of the call's own
_PLAIN = frozenset({type(None), bool, int, float, str})
_LARGE = 1 << 4096  # larger numbers travel as hexadecimal digits, whose conversion takes linear time
# Matches from every quote, if need be to the end: trying in vain from each of a million quotes is quadratic.
_STRING = re.compile(rb'(?s)"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)')
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPENING = bytes(2 if byte in b"[{" else 0 for byte in range(256))

Keep = Callable[
    [Any, "Encoder", int], "list[Any] | None"
]  # what stands for an object that stays, or None if it may not


class NotData(ValueError):
    """A value of a type that does not travel, or one nested too deep."""


def encode(value: Any, max_depth: int, keep: Keep | None = None, arguments: dict[int, int] | None = None) -> bytes:
    """`value` as typed JSON. Raises NotData for foreign types, unless `keep` says what stands for them.

    `arguments` maps ids of containers that the other side has as well to their numbers.
    """
    kind = type(value)
    if kind is int and -_LARGE < value < _LARGE:  # the commonest answers without the work of setting up an encoder
        return b"%d" % value
    if kind in _PLAIN and kind is not int:
        return _TO_JSON(value).encode("ascii")
    try:
        return _TO_JSON(Encoder(keep, arguments or {}, _PLAIN).wrap(value, max_depth)).encode("ascii")
    except NotData:
        raise
    except ValueError:  # an integer of too many digits: look at each
        return _TO_JSON(Encoder(keep, arguments or {}, _PLAIN - {int}).wrap(value, max_depth)).encode("ascii")


def encode_contents(containers: list[Any], max_depth: int, keep: Keep, arguments: dict[int, int]) -> bytes:
    """What is in each of `containers`, which refer to each other by their number in `arguments`."""
    for plain in (_PLAIN, _PLAIN - {int}):
        encoder = Encoder(keep, arguments, plain)
        try:
            return _TO_JSON([encoder.contents(each, max_depth) for each in containers]).encode("ascii")
        except NotData:
            raise
        except ValueError:  # as in `encode`
            continue
    raise NotData("the contents cannot be written down")


class Encoder:
    """Turns values into what JSON has. Runs in the worker as well, where it may be lied to: it only builds text."""

    def __init__(self, keep: Keep | None, arguments: dict[int, int], plain: frozenset[type]):
        """`plain`: the types whose values JSON takes as they are."""
        self.keep, self.arguments, self.plain = keep, arguments, plain

    def wrap(self, value: Any, depth: int) -> Any:
        """`value` in terms of JSON."""
        kind = type(value)
        if kind in self.plain:
            return value
        if kind is int:
            return value if -_LARGE < value < _LARGE else {TAG_INT: hex(value)}
        if depth <= 0:
            raise NotData("nested too deep")
        number = self.arguments.get(id(value))
        return {TAG_ARGUMENT: [number]} if number is not None else self.contents(value, depth)

    def contents(self, value: Any, depth: int) -> Any:
        """As `wrap`, but never a reference to `value` itself."""
        wrap, kind, plain = self.wrap, type(value), self.plain
        if kind is list:
            return [item if type(item) in plain else wrap(item, depth - 1) for item in value]
        if kind is tuple:
            return {TAG_TUPLE: [wrap(item, depth - 1) for item in value]}
        if kind is dict:
            return {TAG_DICT: self.pairs(value, depth)}
        if kind is set or kind is frozenset:
            return {TAG_SET if kind is set else TAG_FROZENSET: [wrap(item, depth - 1) for item in value]}
        if kind is bytes:
            return {TAG_BYTES: value.hex()}
        if kind is complex:
            return {TAG_COMPLEX: [value.real, value.imag]}
        return self._foreign(value, depth)

    def pairs(self, value: dict, depth: int) -> list[list[Any]]:
        """Keys and values of a dict, whatever its class makes of them."""
        wrap = self.wrap
        return [[wrap(key, depth - 1), wrap(dict.__getitem__(value, key), depth - 1)] for key in dict.__iter__(value)]

    def _foreign(self, value: Any, depth: int) -> Any:
        """Value types have codes; other subclasses of built-in types become their base; the rest stays, if it may."""
        found = values.reduced(value)
        if found is not None:
            code, parts = found
            return {TAG_VALUE: [code, *[self.wrap(part, depth - 1) for part in parts]]}
        if self.keep is not None and (kept := self.keep(value, self, depth)) is not None:
            return {TAG_KEPT: kept}
        for base, flatten in _FLATTEN:
            if issubclass(type(value), base):
                return self.wrap(flatten(value), depth)
        raise NotData(f"{type(value).__name__} is not data")


_FLATTEN: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
    (list, lambda value: list(list.__iter__(value))),
    (tuple, lambda value: tuple(tuple.__iter__(value))),
    (dict, lambda value: {key: dict.__getitem__(value, key) for key in dict.__iter__(value)}),
    (set, lambda value: set(set.__iter__(value))),
    (frozenset, lambda value: frozenset(frozenset.__iter__(value))),
    (bytes, lambda value: bytes(bytes.__iter__(value))),
    (complex, complex.__complex__ if hasattr(complex, "__complex__") else complex),
)


def is_builtin_subclass(value: Any) -> bool:
    """Whether `value` travels as the built-in value that it is underneath."""
    return any(issubclass(type(value), base) for base, _ in _FLATTEN)


class Decoder:
    """Builds values from typed JSON. `kept` makes what stands for an object that stays with the other side."""

    def __init__(self, kept: Callable[[list[Any]], Any] | None = None):
        self.kept = kept
        self.arguments: list[Any] = []  # the containers of the call that is being answered
        self._from_json = json.JSONDecoder(object_hook=self._unwrap).decode

    def decode(self, data: bytes, max_depth: int) -> Any:
        """The value in `data`. Raises ValueError if it is malformed or deeper than `max_depth` (tags count double)."""
        _refuse_depth(data, 4 + 3 * max_depth)
        try:
            return self._from_json(data.decode("ascii"))
        except (TypeError, KeyError, IndexError, AttributeError, RecursionError, ArithmeticError) as error:
            raise ValueError(f"malformed value: {error}") from None

    # Why no pickle: the bytes come from hostile code. One key per tag, a fixed list of tags, each with its own check of
    # size and type; nothing is looked up by name and no constructor outside `values` runs. Example: {TAG_TUPLE:
    # [1, 2]} is (1, 2); an unknown tag or two keys are a malformed answer.
    def _unwrap(self, tagged: dict[str, Any]) -> Any:
        if len(tagged) != 1:
            raise ValueError("a tag has exactly one key")
        ((tag, body),) = tagged.items()
        if tag == TAG_BYTES:
            return bytes.fromhex(body)
        if tag == TAG_INT:
            return int(body, 16)
        if type(body) is not list:
            raise ValueError("a tag holds a list")
        if tag == TAG_TUPLE:
            return tuple(body)
        if tag == TAG_DICT:
            return _table(body)
        if tag in (TAG_SET, TAG_FROZENSET):
            refuse_collisions(body)
            members = {item for item in body}  # noqa: C416 - bytecode, so an alarm can interrupt colliding hashes
            return members if tag == TAG_SET else frozenset(members)
        if tag == TAG_COMPLEX:
            return complex(*body)
        if tag == TAG_VALUE:
            return values.restored(body[0], body[1:])
        if tag == TAG_ARGUMENT and type(body[0]) is int and body[0] >= 0:
            return self.arguments[body[0]]
        if tag == TAG_KEPT and self.kept is not None:
            return self.kept(body)
        raise ValueError(f"unknown tag {tag!r}")


def _table(pairs: list[Any]) -> dict[Any, Any]:
    refuse_collisions([key for key, _ in pairs])
    return {key: item for key, item in pairs}  # noqa: C416


def decode(data: bytes, max_depth: int) -> Any:
    """The value in `data`, which must be data altogether. Raises ValueError."""
    return _PLAIN_DECODER.decode(data, max_depth)


def refuse_collisions(keys: list[Any]) -> None:
    """Raise ValueError for many keys with few hashes: putting them into one table would take quadratic time."""
    if len(keys) > 500 and len(set(map(hash, keys))) < len(keys) // 8:
        raise ValueError("keys collide")


def _refuse_depth(data: bytes, max_depth: int) -> None:
    """Raise ValueError if brackets nest deeper than `max_depth`, or do not match."""
    if data.count(b"[") + data.count(b"{") <= max_depth:
        return
    brackets = _STRING.sub(b"", data).translate(None, _NOT_BRACKETS)
    for _ in range(32):  # each round strips the innermost level: most answers are flat
        stripped = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if not stripped:
            return
        if len(stripped) == len(brackets):
            raise ValueError("unbalanced brackets")
        brackets = stripped
    twice_opened = accumulate(brackets.translate(_OPENING))  # less the number of brackets so far: the depth
    if max(map(sub, twice_opened, count(1))) + 32 > max_depth:
        raise ValueError("nested too deep")


_TO_JSON = json.JSONEncoder(separators=(",", ":")).encode
_PLAIN_DECODER = Decoder()
