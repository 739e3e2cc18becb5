"""What runs in the sandboxed process around the model's text: load it, call its function, send back data.

Everything here shares a process with hostile code and may be corrupted by it: nothing it says is believed without the
judge. It knows no expected answer. Standard library only; never returns to the zygote.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from marshal import dumps, loads
from types import ModuleType

from sandboxes import codec, operations, script
from sandboxes.codec import NotData, encode
from sandboxes.replies import CALLBACK, CHANGED, LOAD_FAILED, RAISED, TOO_LARGE, VALUE, describe, failure

MODULE, SCRIPT, PLAIN_CALL, WATCHED_CALL, OPERATION = b"M", b"S", b"C", b"W", b"O"
MODULE_NAME = "solution"
_modules = sys.modules


def serve(descriptor: int, result_bytes: int, result_depth: int) -> None:
    """Answer the frames on `descriptor` over it, until it is closed."""
    answer(_frames(descriptor), lambda tag, body: _send(descriptor, tag, body), result_bytes, result_depth)


def answer(frames: Iterator[bytes], send: Callable[[bytes, bytes], None], result_bytes: int, result_depth: int) -> None:
    """Answer `frames`, first the program (see `load_frame`), then each call, by a tag and a body."""
    first = next(frames, b"")
    if first[:1] == SCRIPT:
        send(*script.run(first[1:]))
        return
    entry_point, _, source = first[1:].partition(b"\0")
    module, failure = _load(source.decode())
    if failure is None:
        function, failure = _entry(module, entry_point.decode())
    if failure is not None:
        send(*failure)
        return
    worker = Worker(module, function, frames, send, result_bytes, result_depth)
    for frame in frames:
        worker.reply(frame)


class Worker:
    """A loaded program that answers calls, and keeps what cannot travel."""

    def __init__(self, module, function, frames, send, result_bytes: int, result_depth: int):
        self.module, self.function = module, function
        self.frames, self._send = frames, send
        self.result_bytes, self.result_depth = result_bytes, result_depth
        self._objects: operations.Objects | None = None

    @property
    def objects(self) -> operations.Objects:
        """What stays here. Most programs answer with data: they are spared the memory pages."""
        if self._objects is None:
            self._objects = operations.Objects(self.module.__dict__, self.function, self._call_back)
        return self._objects

    def _keep(self, value, encoder, depth: int) -> list | None:
        return self.objects.keep(value)

    def reply(self, frame: bytes) -> None:
        """Do what `frame` asks for and send the answer."""
        kind = frame[:1]
        watch = None
        if kind == OPERATION:
            name, args, kwargs = self.objects.decode(frame[5:])
            function, num_containers = self.objects.operation(name), int.from_bytes(frame[1:5], "little")
            if num_containers:
                watch = _Watch((*args, *kwargs.values()), lambda: _arguments(self.objects.decode(frame[5:])))
                watch = (
                    watch if len(watch.containers) == num_containers else None
                )  # one that is there twice is two here
        else:
            args, kwargs = loads(frame[1:])  # from the judge: trusted
            function = self.function
            if kind == WATCHED_CALL:
                watch = _Watch((args, kwargs), lambda: loads(frame[1:]))
        tag, body = self._answer(function, args, kwargs, watch)
        if watch is not None and (changed := self._changed(watch)):
            if len(changed) > self.result_bytes:
                tag, body = TOO_LARGE, b""
            else:
                self._send(CHANGED, changed)
        self._send(tag, body)

    def _answer(self, function, args, kwargs, watch: _Watch | None = None) -> tuple[bytes, bytes]:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            return failure(error, RAISED)
        try:
            body = encode(result, self.result_depth, self._keep, watch.numbers if watch is not None else None)
        except (NotData, RecursionError):
            return TOO_LARGE, b""
        except BaseException as error:
            return failure(error, RAISED)
        return (VALUE, body) if len(body) <= self.result_bytes else (TOO_LARGE, b"")

    def _changed(self, watch: _Watch) -> bytes:
        try:
            return watch.report(self.result_depth, self._keep)
        except BaseException:
            return b""  # what it has put there does not travel: the test sees its arguments as they were

    def _call_back(self, number: int, args: tuple, kwargs: dict):
        """The result of a function of the test, which runs there. Raises what it raises."""
        self._send(CALLBACK, encode([number, args, kwargs], self.result_depth, self._keep))
        for frame in self.frames:
            if frame[:1] == OPERATION:
                name, values, _ = self.objects.decode(frame[5:])
                if name == "returned":
                    return values[0]
                if name == "raised":
                    raise operations.exception(*values)
            self.reply(frame)
        raise EOFError("the test is over")


def _arguments(operation: tuple) -> tuple:
    _, args, kwargs = operation
    return (*args, *kwargs.values())


class _Watch:
    """The containers among the arguments of a call; `as_sent` makes the arguments anew, as they were before it."""

    def __init__(self, arguments: tuple, as_sent: Callable[[], tuple]):
        self.arguments, self.as_sent = arguments, as_sent
        self.containers = operations.containers(arguments)
        self.numbers = {id(container): number for number, container in enumerate(self.containers)}

    def report(self, depth: int, keep: codec.Keep) -> bytes:
        """The contents of all containers, or nothing if they are as they were."""
        try:
            if not self.containers or self.arguments == self.as_sent():
                return b""
        except Exception:  # of a comparison with what the program has put there
            pass
        return codec.encode_contents(self.containers, depth, keep, self.numbers)


def _frames(descriptor: int, read: Callable[[int, int], bytes] = os.read) -> Iterator[bytes]:
    pending = b""
    while True:
        start, size = 0, len(pending)
        while size - start >= 4:
            end = start + 4 + int.from_bytes(pending[start : start + 4], "little")
            if end > size:
                break
            yield pending[start + 4 : end]
            start = end
        chunk = read(descriptor, 1 << 16 if pending else 1 << 12)
        if not chunk:
            return
        pending = pending[start:] + chunk


def _send(descriptor: int, tag: bytes, body: bytes, write: Callable[[int, bytes], int] = os.write) -> None:
    data = (1 + len(body)).to_bytes(4, "little") + tag + body
    while data:
        data = data[write(descriptor, data) :]


def call_frame(args: tuple, kwargs: dict, watched: bool = False) -> bytes:
    """The frame of one call with plain data, as the judge sends it. Raises ValueError for anything else."""
    return (WATCHED_CALL if watched else PLAIN_CALL) + dumps((args, kwargs))


def operation_frame(operation: bytes, num_containers: int = 0) -> bytes:
    """The frame of an encoded (name, args, kwargs); `num_containers` of the arguments are watched for changes."""
    return OPERATION + num_containers.to_bytes(4, "little") + operation


def load_frame(source: str, entry_point: str) -> bytes:
    """The first frame, as the judge sends it."""
    return MODULE + entry_point.encode() + b"\0" + source.encode()


def script_frame(source: str, stdin: str) -> bytes:
    """The only frame of a program that reads stdin and writes stdout."""
    text = source.encode()
    return SCRIPT + len(text).to_bytes(4, "little") + text + stdin.encode("utf-8", "surrogatepass")


def _load(source: str) -> tuple[ModuleType, tuple[bytes, bytes] | None]:
    """The program as a module, and the failure to report, if any."""
    module = ModuleType(MODULE_NAME)
    _modules[MODULE_NAME] = module
    try:
        exec(compile(source, "<solution>", "exec", dont_inherit=True), module.__dict__)  # inside the worker only
    except BaseException as error:
        return module, failure(error, LOAD_FAILED)
    return module, None


def _entry(module: ModuleType, entry_point: str) -> tuple[object, tuple[bytes, bytes] | None]:
    """The function that `entry_point` names: `f`, `C`, `Solution().f`; the last also where `f` alone is not there."""
    names = module.__dict__
    try:
        owner, _, method = entry_point.rpartition(".")
        if not owner and entry_point not in names and hasattr(names.get("Solution"), entry_point):
            owner, method = "Solution", entry_point
        if owner:
            found = getattr(names[owner.removesuffix("()")](), method)
        else:
            found = names[entry_point]
        if not callable(found):
            raise TypeError(f"{entry_point} is not callable")
        return found, None
    except KeyError as error:
        return None, (LOAD_FAILED, describe(error))
    except BaseException as error:
        return None, failure(error, LOAD_FAILED)
