"""Typed JSON: how values cross the boundary between the judge and the program.

Only None, bool, int, float, complex, str, bytes, list, tuple, dict and sets travel; subclasses arrive as their base.
Decoding is safe for hostile bytes: it builds built-in values only and raises `ValueError` for everything else.
"""

from __future__ import annotations

import json
import re
from typing import Any

ARGUMENT_DEPTH = 1000
"""How deeply the arguments of a job's calls may be nested."""

TAG_TUPLE, TAG_SET, TAG_FROZENSET, TAG_DICT, TAG_BYTES, TAG_COMPLEX, TAG_OPAQUE = "t", "s", "f", "d", "b", "c", "o"
_PLAIN = frozenset({type(None), bool, int, float, str})
# Matches from every quote, if need be to the end: trying in vain from each of a million quotes is quadratic.
_STRING = re.compile(rb'(?s)"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)')
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class NotData(ValueError):
    """A value of a type that does not travel, or one nested too deep."""


class Opaque:
    """Stands for a value that could not travel. Any use of it raises TypeError: it neither equals nor differs."""

    __slots__ = ("type_name",)

    def __init__(self, type_name: str):
        self.type_name = type_name

    def __repr__(self) -> str:
        return f"<opaque {self.type_name}>"

    def _refuse(self, *_: Any) -> Any:
        raise TypeError(f"the program answered with a {self.type_name}, which is not data")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __len__ = __iter__ = __hash__ = _refuse
    __getitem__ = __contains__ = __call__ = __float__ = __int__ = __index__ = __abs__ = __add__ = __radd__ = _refuse
    __sub__ = __rsub__ = __mul__ = __rmul__ = __round__ = __neg__ = _refuse


def holds_opaque(value: Any) -> bool:
    """Whether there is an Opaque in `value`. It cannot be in a set or a key: it has no hash."""
    if isinstance(value, list | tuple):
        return any(map(holds_opaque, value))
    return any(map(holds_opaque, value.values())) if isinstance(value, dict) else isinstance(value, Opaque)


def encode(value: Any, max_depth: int, opaque: bool = False) -> bytes:
    """`value` as typed JSON. Raises NotData for foreign types unless `opaque`, which replaces them by a tag."""
    kind = type(value)
    if kind is int:  # the commonest answers without the work of setting up an encoder
        return b"%d" % value
    if kind not in _PLAIN:
        value = _wrap(value, max_depth, opaque)
    return _TO_JSON(value).encode("ascii")


def decode(data: bytes, max_depth: int) -> Any:
    """The value in `data`. Raises ValueError for anything malformed or deeper than `max_depth` (tags count double)."""
    _refuse_depth(data, 4 + 3 * max_depth)
    try:
        return _FROM_JSON(data.decode("ascii"))
    except (TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"malformed value: {error}") from None


def _wrap(value: Any, depth: int, opaque: bool) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if depth <= 0:
        raise NotData("nested too deep")
    if kind is list:
        return [item if type(item) in _PLAIN else _wrap(item, depth - 1, opaque) for item in value]
    if kind is tuple:
        return {TAG_TUPLE: [_wrap(item, depth - 1, opaque) for item in value]}
    if kind is dict:
        return {TAG_DICT: [[_wrap(k, depth - 1, opaque), _wrap(v, depth - 1, opaque)] for k, v in value.items()]}
    if kind is set or kind is frozenset:
        return {TAG_SET if kind is set else TAG_FROZENSET: [_wrap(item, depth - 1, opaque) for item in value]}
    if kind is bytes or kind is bytearray:
        return {TAG_BYTES: value.hex()}
    if kind is complex:
        return {TAG_COMPLEX: [value.real, value.imag]}
    return _wrap_foreign(value, depth, opaque)


def _wrap_foreign(value: Any, depth: int, opaque: bool) -> Any:
    """Subclasses of built-in types become their base; numpy scalars and arrays become Python's own."""
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return _wrap(value.tolist(), depth - 1, opaque)
    for base, flatten in _FLATTEN:
        if issubclass(type(value), base):
            return _wrap(flatten(value), depth, opaque)
    if opaque:
        return {TAG_OPAQUE: str(type(value).__name__)[:80]}
    raise NotData(f"{type(value).__name__} is not data")


_FLATTEN = (
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
    (range, list),
)


def _unwrap(tagged: dict[str, Any]) -> Any:
    if len(tagged) != 1:
        raise ValueError("a tag has exactly one key")
    ((tag, body),) = tagged.items()
    if tag == TAG_OPAQUE:
        return Opaque(str(body))
    if tag == TAG_BYTES:
        return bytes.fromhex(body)
    if type(body) is not list:
        raise ValueError("a tag holds a list")
    if tag == TAG_TUPLE:
        return tuple(body)
    if tag == TAG_DICT:
        _refuse_collisions([key for key, _ in body])
        return {key: item for key, item in body}  # noqa: C416
    if tag in (TAG_SET, TAG_FROZENSET):
        _refuse_collisions(body)
    if tag == TAG_SET:
        return {item for item in body}  # noqa: C416 - bytecode, so an alarm can interrupt colliding hashes
    if tag == TAG_FROZENSET:
        return frozenset({item for item in body})  # noqa: C416
    if tag == TAG_COMPLEX:
        return complex(*body)
    raise ValueError(f"unknown tag {tag!r}")


def _refuse_collisions(keys: list[Any]) -> None:
    """Raise ValueError for many keys with few hashes: putting them into one table would take quadratic time."""
    if len(keys) > 500 and len(set(map(hash, keys))) < len(keys) // 8:
        raise ValueError("keys collide")


def _refuse_depth(data: bytes, max_depth: int) -> None:
    """Raise ValueError if brackets nest deeper than `max_depth`. Each round of the loop strips the innermost level."""
    if data.count(b"[") + data.count(b"{") <= max_depth:
        return
    brackets = _STRING.sub(b"", data).translate(None, _NOT_BRACKETS)
    for _ in range(max_depth):
        stripped = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if not stripped:
            return
        if len(stripped) == len(brackets):
            raise ValueError("unbalanced brackets")
        brackets = stripped
    raise ValueError("nested too deep")


_TO_JSON = json.JSONEncoder(separators=(",", ":")).encode
_FROM_JSON = json.JSONDecoder(object_hook=_unwrap).decode
