"""What stands for objects that stay in the worker: every use of one is a question to the program, answered with data.

A handle never lets the program see what an answer is compared with: operations that would are refused, except where the
class itself is under test. Runs in the judge; no code of the program does.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Protocol, cast

_EXACT_ITEMS = 64  # drawn one by one, so that the program is asked for nothing that the test does not want
_MOST_AHEAD = 4096
_FORWARDED_NAMES = ("__name__", "__qualname__", "__doc__", "__dict__", "__annotations__", "__wrapped__", "__defaults__")
# Questions of built-in types whose answer is the verdict: an object that says yes to all of them would pass.
_PREDICATES = frozenset(
    name for kind in (str, bytes, set, float) for name in dir(kind) if name.startswith(("is", "startswith", "endswith"))
) | {"equals"}  # fmt: skip


class Refused(TypeError):
    """The test wants of an object what only data can give."""


class Unsupported(Refused):
    """The test itself wants an object of a library, and got one: a right answer of that type does not travel."""


class Session(Protocol):
    """The conversation with the program."""

    class_under_test: bool
    test_packages: frozenset[str]  # what the test imports

    def operate(self, name: str, /, *args: Any, **kwargs: Any) -> Any: ...

    def class_named(self, name: str) -> type | None: ...

    def is_data(self, value: Any) -> bool: ...


class Handle:
    """An object of the program. `number` is its name there."""

    def __init__(self, session: Session, number: int, class_name: str, module: str):
        self.__dict__.update(_session=session, _number=number, _class_name=class_name, _module=module)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__") and name not in _FORWARDED_NAMES:
            raise AttributeError(name)
        if name in _PREDICATES and not self._session.class_under_test:
            raise self._refusal(self._is_of_test_packages(name))
        return self._session.operate("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._session.operate("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._session.operate("delattr", self, name)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return self._stands_for()

    def _stands_for(self) -> type:
        """What `isinstance` and `__class__` say: the test's own class of that name, if it has one."""
        known = self._session.class_named(self._class_name) if self._module == "solution" else None
        return known or type(self)

    def __instancecheck__(self, other: object) -> bool:
        return type(other) in KINDS.values() and self._session.operate("isinstance", other, self) is True

    def __contains__(self, item: Any) -> bool:
        if self._session.class_under_test:
            return self._session.operate("contains", self, item) is True
        return any(item is each or item == each for each in cast(Iterable[Any], self))

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise self._refusal()

    def __bool__(self) -> bool:
        return self._session.operate("bool", self) is True

    def _refusal(self, wanted: bool = False) -> Refused:
        """`wanted`: the test asks for such an object. What the program answers with must not decide that: it could then
        choose between a wrong answer and an unscored one.
        """
        foreign = self._module not in ("solution", "builtins", "__main__")
        name = f"{self._module}.{self._class_name}" if foreign else self._class_name
        kind = Unsupported if foreign and wanted else Refused
        return kind(f"the program answered with a {name}, which is not data")

    def _refused_beside(self, expected: Any) -> Refused:
        """The refusal of an operation with a value of the test: wanted where that is of the same library, and no data
        (the program says what library its object is of, which may be a lie).
        """
        of_the_same = _library(type(expected).__module__) == _library(self._module)
        return self._refusal(of_the_same and not self._session.is_data(expected))

    def _is_of_test_packages(self, method: str) -> bool:
        """True if the test imports the library of the object and the library's class of that name has such a method."""
        kind = getattr(sys.modules.get(self._module), self._class_name, None)
        return _library(self._module) in self._session.test_packages and hasattr(kind, method)

    def _compare(self, name: str, other: Any) -> Any:
        if isinstance(other, Handle):
            return self._session.operate(name, self, other)
        if self._session.class_named(type(other).__name__) is type(other):
            return NotImplemented  # an object of the test: its own method decides
        raise self._refused_beside(other)


class FunctionHandle(Handle):
    """A function, method or class of the program."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._session.operate("call", self, *args, **kwargs)


class IteratorHandle(Handle):
    """An iterator of the program: drawn item by item, later in larger and larger parts."""

    def __init__(self, session: Session, number: int, class_name: str, module: str):
        super().__init__(session, number, class_name, module)
        self.__dict__.update(_items=drawn(session, self))

    def _stands_for(self) -> type:
        known = getattr(builtins, self._class_name, None) if self._module == "builtins" else None
        return known if isinstance(known, type) else super()._stands_for()

    def _compare(self, name: str, other: Any) -> Any:
        return NotImplemented  # an iterator equals itself only

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._items)


KINDS: dict[str, type[Handle]] = {
    "object": Handle,
    "function": FunctionHandle,
    "class": FunctionHandle,
    "iterator": IteratorHandle,
}


def made(session: Session, body: list[Any]) -> Any:
    """What stands for the object that the worker describes. Raises ValueError if it does not describe one."""
    number, kind, class_name, module = body
    if type(number) is not int or type(class_name) is not str or type(module) is not str:
        raise ValueError("an object has a number and the name of its class")
    if kind in ("generator", "coroutine"):
        handle = Handle(session, number, class_name, module)
        return _generator(session, handle) if kind == "generator" else _coroutine(session, handle)
    return KINDS[kind](session, number, class_name, module)


def drawn(session: Session, source: Handle) -> Iterator[Any]:
    """The items of an iterator of the program."""
    num_drawn = 0
    while True:
        most = 1 if num_drawn < _EXACT_ITEMS else min(num_drawn, _MOST_AHEAD)
        items, ended = _part(session.operate("draw", source, most))
        num_drawn += len(items)
        yield from items
        if ended:
            return


def _part(answer: Any) -> tuple[list[Any], bool]:
    items, ended = answer
    if type(items) is not list or type(ended) is not bool or not (items or ended):
        raise TypeError("a part of an iterator is a list and whether that was the end")
    return items, ended


def _generator(session: Session, source: Handle) -> Generator[Any, Any, None]:
    """A generator of our own: what is sent into it is passed on."""
    num_drawn, sent = 0, None
    while True:
        if sent is not None:
            items, ended = _part(session.operate("send", source, sent))
        else:
            most = 1 if num_drawn < _EXACT_ITEMS else min(num_drawn, _MOST_AHEAD)
            items, ended = _part(session.operate("draw", source, most))
        num_drawn, sent = num_drawn + len(items), None
        for item in items:
            sent = yield item
        if ended:
            return


async def _coroutine(session: Session, source: Handle) -> Any:
    return session.operate("run", source)


def _library(module: str) -> str:
    return module.partition(".")[0]


def _asked(name: str) -> Callable[..., Any]:
    def ask(self: Handle, *args: Any) -> Any:
        return self._session.operate(name, self, *args)

    return ask


def _compared(name: str) -> Callable[..., Any]:
    return lambda self, other: self._compare(name, other)


def _combined_with(self: Handle, name: str, other: Any, swapped: bool) -> Any:
    if not (self._session.class_under_test or isinstance(other, Handle)):
        raise self._refused_beside(other)
    return self._session.operate(name, other, self) if swapped else self._session.operate(name, self, other)


def _arithmetic(name: str, swapped: bool = False) -> Callable[..., Any]:
    return lambda self, other: _combined_with(self, name, other, swapped)


def _complete() -> None:
    """Give Handle the special methods: Python looks for them in the class, never in `__getattr__`."""
    asked = ("len", "iter", "reversed", "str", "repr", "hash", "int", "float", "complex", "index", "abs", "neg", "pos")
    for name in (*asked, "invert", "round", "format", "getitem", "setitem", "delitem", "enter"):
        setattr(Handle, f"__{name}__", _asked(name))
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(Handle, f"__{name}__", _compared(name))
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "lshift", "rshift"):
        setattr(Handle, f"__{name}__", _arithmetic(name))
        setattr(Handle, f"__r{name}__", _arithmetic(name, swapped=True))
    for name in ("and", "or", "xor"):
        setattr(Handle, f"__{name}__", _arithmetic(f"{name}_"))
        setattr(Handle, f"__r{name}__", _arithmetic(f"{name}_", swapped=True))
    setattr(Handle, "__exit__", lambda self, *_: self._session.operate("leave", self, None) is True)  # noqa: B010


_complete()
