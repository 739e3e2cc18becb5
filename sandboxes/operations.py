"""What the judge may ask of objects that stay in the worker: a table of plain functions, and the objects by number.

Shares a process with hostile code, like all of the worker. Standard library only.
Both sides number the containers in a call's arguments alike.
"""

from __future__ import annotations

import builtins
import operator
from collections import deque
from collections.abc import Callable
from typing import Any

from sandboxes import codec

MOST_OBJECTS = 200_000
MUTABLE = (list, dict, set, bytearray, deque)
_NESTING = frozenset({list, tuple, dict, deque})
ENTRY = 0  # the number of the function under test


def containers(value: Any) -> list[Any]:
    """All containers in `value` that can be changed in place, each once, in a fixed order."""
    found: list[Any] = []
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        kind = type(item)
        if kind in MUTABLE:
            found.append(item)
        if kind in _NESTING:
            parts = item.values() if kind is dict else item
            waiting += [part for part in parts if type(part) in _NESTING or type(part) in MUTABLE]
    return found


def _send(generator: Any, value: Any) -> tuple[list[Any], bool]:
    try:
        return [generator.send(value)], False
    except StopIteration:
        return [], True


def _run(coroutine: Any) -> Any:
    import asyncio

    return asyncio.run(coroutine) if hasattr(coroutine, "send") else asyncio.run(_awaited(coroutine))


async def _awaited(thing: Any) -> Any:
    return await thing


def _base(value: Any) -> Any:
    """The built-in value underneath an instance of a subclass."""
    return codec.decode(codec.encode(value, 200), 200)


def _call(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


_TABLE: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, name) for name in dir(operator) if not name.startswith("_")},
    **{k.__name__: k for k in (len, iter, reversed, str, repr, bool, hash, int, float, complex, round, format, dir)},
    **{k.__name__: k for k in (getattr, setattr, delattr, isinstance, issubclass, divmod, pow, bytes)},
    "call": _call,
    "send": _send,
    "run": _run,
    "base": _base,
    "enter": lambda manager: manager.__enter__(),
    "leave": lambda manager, error: manager.__exit__(type(error) if error else None, error, None),
}


class Objects:
    """The objects that stay: those of the program, by number, and stand-ins for functions of the test."""

    def __init__(self, names: dict[str, Any], function: Any, call_back: Callable[[int, tuple, dict], Any]):
        self.names, self.call_back = names, call_back
        self.numbered: list[Any] = [function]
        self.numbers: dict[int, int] = {id(function): ENTRY}
        self.errors: dict[int, Exception] = {}  # raised by an iterator behind items that were drawn ahead
        self.decode_with = codec.Decoder(self._own)

    def keep(self, value: Any, *_: Any) -> list[Any] | None:
        """[number, kind, name of the class, its module] of an object that stays, None if it travels after all."""
        kind = type(value)
        if codec.is_builtin_subclass(value) and not self._has_own_methods(kind):
            return None
        number = self.numbers.get(id(value))
        if number is None:
            if len(self.numbered) >= MOST_OBJECTS:
                raise codec.NotData("too many objects")
            number = self.numbers[id(value)] = len(self.numbered)
            self.numbered.append(value)
        return [number, _kind(value), str(kind.__qualname__)[:80], str(kind.__module__)[:80]]

    def _has_own_methods(self, kind: type) -> bool:
        """Whether a class under test is derived from a built-in one: its instances are more than their data."""
        return kind is self.numbered[ENTRY]

    def _own(self, body: list[Any]) -> Any:
        """What the judge means: one of our objects, a function of the test, or an instance of a class of the test."""
        if body[0] == "function":
            return lambda *args, **kwargs: self.call_back(body[1], args, kwargs)
        if body[0] == "items":
            return iter(body[1])
        if body[0] == "instance":
            kind = self.names.get(body[1])
            made: Any = object.__new__(kind if isinstance(kind, type) else type(body[1], (), {}))
            made.__dict__.update(body[2])
            return made
        return self.numbered[body[0]]

    def decode(self, frame: bytes) -> tuple[str, list[Any], dict[str, Any]]:
        """(name, args, kwargs) of an operation."""
        return self.decode_with.decode(frame, codec.ARGUMENT_DEPTH)

    def operation(self, name: str) -> Callable[..., Any]:
        """The function behind `name`."""
        if name == "name":
            return self._named
        if name == "draw":
            return self._draw
        if name == "eval":
            return lambda text, names: eval(text, {**self.names, **names})  # text of the program, in its own process
        if name == "exec":
            return self._exec
        return _TABLE[name]

    def _draw(self, iterator: Any, most: int) -> tuple[list[Any], bool]:
        """Up to `most` items, and whether the iterator has ended. An error is raised after the items before it."""
        if (earlier := self.errors.pop(id(iterator), None)) is not None:
            raise earlier
        items: list[Any] = []
        while len(items) < most:
            try:
                items.append(next(iterator))
            except StopIteration:
                return items, True
            except Exception as error:
                if not items:
                    raise
                self.errors[id(iterator)] = error
                break
        return items, False

    def _named(self, name: str) -> Any:
        if name not in self.names and not hasattr(builtins, name):
            raise NameError(f"name {name!r} is not defined")
        return self.names[name] if name in self.names else getattr(builtins, name)

    def _exec(self, text: str, names: dict[str, Any]) -> dict[str, Any]:
        inside = {**self.names, **names}
        exec(text, inside)  # text of the program, in its own process
        return {key: item for key, item in inside.items() if self.names.get(key, self) is not item and key[:2] != "__"}


def _kind(value: Any) -> str:
    """How the judge should present the object."""
    kind = type(value)
    if kind.__module__ == "builtins" and kind.__name__ in ("generator", "coroutine"):
        return kind.__name__
    if hasattr(kind, "__next__"):
        return "iterator"
    if isinstance(value, type):
        return "class"
    return "function" if callable(value) else "object"


def exception(name: str, args: Any) -> Exception:
    """An exception of a function of the test, as the program sees it."""
    kind = getattr(builtins, name, None)
    known = isinstance(kind, type) and issubclass(kind, Exception)
    return kind(*args) if known and kind is not None else Exception(*args)
