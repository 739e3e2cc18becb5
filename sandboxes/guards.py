"""Keeps the program's answers from being run as code in the judge, whatever a test does with them.

`eval` and `exec` of text that is not the test's own are done by the program, in its own process. Other ways to run
text or start programs are refused by an audit hook while a test runs. Answers arrive as data: text is all they can be.
"""

from __future__ import annotations

import builtins
import sys
import types
from typing import Any

from sandboxes.handles import Refused
from sandboxes.proxy import Session

# Standard library modules that build classes and functions out of checked names, or load modules.
_BUILDERS = ("collections", "dataclasses", "enum", "typing", "functools", "importlib", "ast", "re", "zoneinfo")
_DENIED = """
os.system os.exec os.posix_spawn os.spawn os.fork os.forkpty os.kill os.killpg pty.spawn subprocess.Popen
pickle.find_class marshal.loads code.__new__ function.__new__ socket.connect socket.bind ctypes.dlopen os.remove
os.rename os.rmdir os.truncate os.chmod os.chown os.link os.symlink shutil.rmtree shutil.move shutil.copyfile
urllib.Request webbrowser.open
"""
_DENIED_EVENTS = frozenset(_DENIED.split())


class _Guard:
    """What the audit hook knows. `session` is that of the test that is running."""

    session: Session | None = None
    own_code: frozenset[Any] = frozenset()
    installed = False


def install() -> None:
    """Add the audit hook to this process, once."""
    if not _Guard.installed:
        _Guard.installed = True
        sys.addaudithook(_audit)


def begin(session: Session, own_code: frozenset[Any]) -> None:
    """From now on a test is running that consists of `own_code`."""
    _Guard.session, _Guard.own_code = session, own_code


def end() -> None:
    """The test is over."""
    _Guard.session = None


def _audit(event: str, args: tuple[Any, ...]) -> None:
    session = _Guard.session
    if session is None or not session.num_answers or session.is_asking:
        return
    denied = (
        event in _DENIED_EVENTS or (event == "exec" and not _is_known(args[0])) or (event == "open" and _writes(args))
    )
    if denied and not _is_importing():
        raise Refused(f"{event}: the program's answers are not run by the judge")


def _is_importing() -> bool:
    """Whether a module is being loaded, which is trusted with what it does."""
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _writes(args: tuple[Any, ...]) -> bool:
    return isinstance(args[1], str) and any(letter in args[1] for letter in "wax+")


def _is_known(code: Any) -> bool:
    """Whether code is about to be run that is not an answer: a module's, or what the library builds itself."""
    if code in _Guard.own_code or code.co_filename.startswith("<frozen "):
        return True
    frame = sys._getframe(2)
    module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    return module in _BUILDERS or frame.f_code.co_filename.startswith("<frozen importlib")


class Text:
    """What `compile` gives a test for text that is not its own: to be run by the program only."""

    def __init__(self, text: str, mode: str):
        self.text, self.mode = text, mode


# Why the built-ins and no AST rewriting: tests of benchmarks call eval, exec and compile on answers in every disguise
# (aliases, map(eval, ...)). Text of the test's own runs here; any other text is the program's and runs in its process.
# Example: `eval("1 + 1")` is the test's literal: here. `eval(candidate(3))`: the program's process; data comes back.
def builtins_for(session: Session, own_text: frozenset[str]) -> dict[str, Any]:
    """The built-in names of a test whose own literals are `own_text`."""

    def is_own(text: Any) -> bool:
        return not session.num_answers or (isinstance(text, str) and text in own_text)

    def run_own(run: Any, source: Any, names: Any, local_names: Any) -> Any:
        frame = sys._getframe(2)
        known = names if names is not None else frame.f_globals
        local = local_names if local_names is not None else names if names is not None else frame.f_locals
        return run(source, known, local)

    def guarded_eval(source: Any, names: Any = None, local_names: Any = None, /) -> Any:
        """`eval`; of an answer: its value in the program's process, with the names handed over and no others."""
        if not isinstance(source, Text) and (is_own(source) or not isinstance(source, str)):
            return run_own(_allowing(session, builtins.eval), source, names, local_names)
        return session.operate("eval", _text_of(source), _visible(names, local_names, session))

    def guarded_exec(source: Any, names: Any = None, local_names: Any = None, /) -> None:
        """`exec`; of an answer: done by the program, what it defines is handed back."""
        if not isinstance(source, Text) and (is_own(source) or not isinstance(source, str)):
            run_own(_allowing(session, builtins.exec), source, names, local_names)
            return
        defined = session.operate("exec", _text_of(source), _visible(names, local_names, session))
        target = local_names if local_names is not None else names if names is not None else sys._getframe(1).f_globals
        if isinstance(defined, dict):
            target.update((key, value) for key, value in defined.items() if _may_define(key, target, session))

    def guarded_compile(source: Any, filename: Any, mode: str, *args: Any, **kwargs: Any) -> Any:
        if is_own(source) or not isinstance(source, str) or (args and args[0]):
            return builtins.compile(source, filename, mode, *args, **kwargs)
        return Text(source, mode)

    replaced = {
        "eval": guarded_eval,
        "exec": guarded_exec,
        "compile": guarded_compile,
        "input": _no_input,
        "locals": _locals,
    }
    return {**vars(builtins), **replaced}


def _allowing(session: Session, run: Any) -> Any:
    """`run` for code of the test's own: not subject to the audit hook."""

    def allowed(source: Any, names: Any, local_names: Any) -> Any:
        code = builtins.compile(source, "<test>", run.__name__) if isinstance(source, str) else source
        if not session.num_answers or isinstance(source, str):
            _Guard.own_code |= {code}
        return run(code, names, local_names)

    return allowed


def _text_of(source: str | Text) -> str:
    return source.text if isinstance(source, Text) else source


class _Scope(dict[str, Any]):
    """What `locals()` gives a test."""


def _visible(names: Any, local_names: Any, session: Session) -> dict[str, Any]:
    """The names that the test hands over explicitly. Its variables stay unseen: among them is what it expects."""
    given = [scope for scope in (names, local_names) if scope and not _is_scope(scope, session)]
    return {key: value for scope in given for key, value in scope.items() if isinstance(key, str) and key[:2] != "__"}


def _is_scope(names: Any, session: Session) -> bool:
    return isinstance(names, _Scope) or names is session.namespace


def _locals() -> _Scope:
    return _Scope(sys._getframe(1).f_locals)


def _may_define(name: Any, target: dict[str, Any], session: Session) -> bool:
    """An answer may add names and change none: one of the test's functions is not to be replaced."""
    return isinstance(name, str) and not (target is session.namespace and name in target)


def _no_input(*_: Any) -> str:
    raise EOFError("a test has no standard input")
