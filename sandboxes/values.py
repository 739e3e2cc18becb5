"""Value types of the standard library that travel by a code: numbers, dates, named tuples, queues, views, ranges.

Each is taken apart into data on one side and put together from data on the other. Modules are imported when a value of
theirs is met. Nothing here calls a method that a program could have replaced on the side that judges.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

Parts = tuple[Any, ...]


def reduced(value: Any) -> tuple[str, Parts] | None:
    """(code, parts) of `value`, by the first class in its ancestry that has a code; None if there is none."""
    for kind in type(value).__mro__:
        found = _REDUCE.get((kind.__module__, kind.__qualname__))
        if found is not None:
            code, take_apart = found
            return code, take_apart(value)
        if kind is tuple and isinstance(getattr(type(value), "_fields", None), tuple):
            return "namedtuple", (type(value).__name__, type(value)._fields, tuple(tuple.__iter__(value)))
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return "numpy", (type(value).__name__, str(getattr(value, "dtype", "")), value.tolist())
    if isinstance(value, type) and value.__module__ == "builtins":
        return "type", (value.__name__,)
    return None


def restored(code: str, parts: list[Any]) -> Any:
    """The value. Raises an Exception of some kind for parts that do not fit."""
    return _RESTORE[code](*parts)


def _module(name: str) -> Any:
    return __import__(name)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("text is wanted here")
    return value


_REDUCE: dict[tuple[str, str], tuple[str, Callable[[Any], Parts]]] = {
    ("builtins", "bytearray"): ("bytearray", lambda v: (bytes(v),)),
    ("builtins", "range"): ("range", lambda v: (v.start, v.stop, v.step)),
    ("builtins", "slice"): ("slice", lambda v: (v.start, v.stop, v.step)),
    ("builtins", "ellipsis"): ("ellipsis", lambda v: ()),
    ("builtins", "dict_keys"): ("keys", lambda v: (list(v),)),
    ("builtins", "dict_values"): ("values", lambda v: (list(v),)),
    ("builtins", "dict_items"): ("items", lambda v: (dict(v),)),
    ("builtins", "mappingproxy"): ("mappingproxy", lambda v: (dict(v),)),
    ("collections", "deque"): ("deque", lambda v: (list(v), v.maxlen)),
    ("collections", "Counter"): ("counter", lambda v: (dict(dict.items(v)),)),
    ("collections", "OrderedDict"): ("ordered", lambda v: (list(v.items()),)),
    ("collections", "defaultdict"): ("defaultdict", lambda v: (_factory(v.default_factory), dict(dict.items(v)))),
    ("collections", "ChainMap"): ("chainmap", lambda v: (list(v.maps),)),
    ("fractions", "Fraction"): ("fraction", lambda v: (int(v.numerator), int(v.denominator))),
    ("decimal", "Decimal"): ("decimal", lambda v: (_module("decimal").Decimal.__str__(v),)),
    ("datetime", "datetime"): (
        "datetime",
        lambda v: ((v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond), v.tzinfo, v.fold),
    ),
    ("datetime", "date"): ("date", lambda v: (v.year, v.month, v.day)),
    ("datetime", "time"): ("time", lambda v: ((v.hour, v.minute, v.second, v.microsecond), v.tzinfo, v.fold)),
    ("datetime", "timedelta"): ("timedelta", lambda v: (v.days, v.seconds, v.microseconds)),
    ("datetime", "timezone"): ("timezone", lambda v: (v.utcoffset(None), v.tzname(None))),
    ("zoneinfo", "ZoneInfo"): ("zoneinfo", lambda v: (v.key,)),
    ("uuid", "UUID"): ("uuid", lambda v: (v.int,)),
    ("pathlib", "PurePosixPath"): ("path", lambda v: (str(v), hasattr(v, "open"))),
    ("array", "array"): ("array", lambda v: (v.typecode, v.tolist())),
    ("ipaddress", "IPv4Address"): ("ipv4", lambda v: (int(v),)),
    ("ipaddress", "IPv6Address"): ("ipv6", lambda v: (int(v),)),
    ("types", "SimpleNamespace"): ("namespace", lambda v: (dict(vars(v)),)),
}
_FACTORIES: dict[str, Callable[[], Any]] = {k.__name__: k for k in (int, float, str, list, dict, set, tuple, bool)}


def _factory(made_by: Any) -> str | None:
    """The name of a default factory; a test that relies on any other gets a KeyError."""
    name = getattr(made_by, "__name__", None)
    return name if isinstance(name, str) and _FACTORIES.get(name) is made_by else None


def _counter(items: dict[Any, Any]) -> Any:
    found = _module("collections").Counter()
    dict.update(found, items)
    return found


def _named_tuple(name: str, fields: Any, items: Any) -> Any:
    """An instance of a class of our own: it equals every tuple with these items, as that of the program does."""
    return _named_tuple_class(_text(name), tuple(map(_text, fields)))(*items)


@functools.lru_cache(maxsize=64)
def _named_tuple_class(name: str, fields: tuple[str, ...]) -> type:
    if len(fields) > 256:
        raise ValueError("a named tuple has at most 256 items")
    return _module("collections").namedtuple(name, fields, rename=True)


def _zone(key: str) -> Any:
    import zoneinfo

    return zoneinfo.ZoneInfo(_text(key))


def _numpy(kind: str, dtype: str, plain: Any) -> Any:
    """A numpy value where the judge has numpy in use, else the same as Python's own lists and numbers."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not hasattr(numpy, "asarray") or dtype.startswith("object"):
        return plain
    array = numpy.asarray(plain, dtype=_text(dtype) or None)
    return array if _text(kind) in ("ndarray", "matrix") else array[()]


def _path(text: str, concrete: bool) -> Any:
    pathlib = _module("pathlib")
    return (pathlib.PosixPath if concrete is True else pathlib.PurePosixPath)(_text(text))


_TYPES = {
    k.__name__: k for k in (int, float, str, list, dict, set, frozenset, tuple, bool, bytes, complex, object, type)
}
_TYPES["NoneType"] = type(None)
_RESTORE: dict[str, Callable[..., Any]] = {
    "bytearray": lambda data: bytearray(memoryview(data)),
    "range": range,
    "slice": slice,
    "ellipsis": lambda: ...,
    "keys": lambda keys: dict.fromkeys(keys).keys(),
    "values": lambda items: dict(enumerate(items)).values(),
    "items": lambda pairs: dict.items(pairs),
    "mappingproxy": lambda pairs: _module("types").MappingProxyType(dict(pairs)),
    "deque": lambda items, maxlen: _module("collections").deque(items, maxlen),
    "counter": _counter,
    "ordered": lambda pairs: _module("collections").OrderedDict(pairs),
    "defaultdict": lambda name, items: _module("collections").defaultdict(_FACTORIES.get(name), items),
    "chainmap": lambda maps: _module("collections").ChainMap(*[dict(found) for found in maps]),
    "fraction": lambda above, below: _module("fractions").Fraction(above, below),
    "decimal": lambda text: _module("decimal").Decimal(_text(text)),
    "datetime": lambda when, zone, fold: _module("datetime").datetime(*when, tzinfo=zone, fold=fold),
    "date": lambda *when: _module("datetime").date(*when),
    "time": lambda when, zone, fold: _module("datetime").time(*when, tzinfo=zone, fold=fold),
    "timedelta": lambda *parts: _module("datetime").timedelta(*parts),
    "timezone": lambda offset, name: _module("datetime").timezone(offset, name),
    "zoneinfo": _zone,
    "uuid": lambda number: _module("uuid").UUID(int=number),
    "path": _path,
    "array": lambda code, items: _module("array").array(_text(code), items),
    "ipv4": lambda number: _module("ipaddress").IPv4Address(number),
    "ipv6": lambda number: _module("ipaddress").IPv6Address(number),
    "namespace": lambda names: _module("types").SimpleNamespace(**names),
    "namedtuple": _named_tuple,
    "numpy": _numpy,
    "type": lambda name: _TYPES[name],
}
