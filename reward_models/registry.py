"""From the name of a reward function in a configuration to the function: short names, `pkg.mod:fn`, `./file.py:fn`.

It may assume nothing but the standard library; a module is imported when a name in it is asked for, not before.
It will not call a reward function. User code is imported only where the configuration names it.
"""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

# short name -> module of this package and function in it
SHORT_NAMES: dict[str, tuple[str, str]] = {
    "math_answer": ("math_answers", "math_answer"),
    "code_execution": ("code_execution", "code_execution"),
    "task_check": ("task_check", "task_check"),
    "exact_match": ("similarity", "exact_match"),
    "bleu": ("similarity", "bleu"),
    "rouge_l": ("similarity", "rouge_l"),
    "teacher_likelihood": ("similarity", "teacher_likelihood"),
    "think_format": ("format", "think_format"),
    "cosine_length": ("format", "cosine_length"),
    "repetition": ("format", "repetition"),
    "soft_overlong": ("format", "soft_overlong"),
    "learned": ("learned", "learned"),
}

# those that verify an answer: what they say is the truth that proxies and the anchor are measured against
VERIFYING_REWARDS = ("task_check", "math_answer", "code_execution", "exact_match")

# A reward function takes at least one of these; a callable that takes none of them builds a reward function.
BATCH_ARGUMENTS = ("prompts", "completions", "completion_ids")

# what a user's module or function may raise: an exit is told as a mistake too, or a run would end without a word
USER_CODE_ERRORS = (Exception, SystemExit)

_IMPORTING = threading.RLock()  # re-entrant: a reward file may resolve another one


def nearest(word: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest choice, or an empty string."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def resolve(fn: str) -> Callable:
    """The callable that a name stands for; ValueError says what there is instead."""
    if not isinstance(fn, str) or not fn:
        raise ValueError(f"the name of a reward function is a non-empty string, not {fn!r}")
    place, colon, attribute = fn.rpartition(":")
    if not colon:
        return _short_name(fn)
    module = _module_from_file(place) if place.endswith(".py") else _module_from_name(place, fn)
    function = getattr(module, attribute, None)
    if function is None:
        public = sorted(name for name, value in vars(module).items() if callable(value) and not name.startswith("_"))
        there = f"it has: {', '.join(public)}" if public else "it defines no function"
        raise ValueError(f"{place} has no {attribute!r}{nearest(attribute, public)}; {there}")
    if not callable(function):
        raise ValueError(f"{fn} is not callable but a {type(function).__name__}")
    return function


def bind(fn: str, kwargs: dict[str, Any]) -> tuple[Callable, dict[str, Any]]:
    """The reward function and the keywords to add to each call.

    A callable that takes none of `prompts`, `completions`, `completion_ids` and no `**kwargs` is taken for a builder
    (`trl.rewards:get_soft_overlong_punishment`): it is called with the kwargs once and returns the function.
    """
    function = resolve(fn)
    takes, takes_all = accepted_arguments(function)
    if takes_all or any(name in takes for name in BATCH_ARGUMENTS):
        unknown = [] if takes_all else [key for key in kwargs if key not in takes]
        if unknown:
            raise ValueError(f"{fn} takes no argument {unknown[0]!r}{nearest(unknown[0], takes)}")
        missing = [name for name in _settings_without_default(function) if name not in kwargs]
        if missing:
            raise ValueError(f"{fn} needs {', '.join(missing)}; give it under kwargs")
        return function, dict(kwargs)
    try:
        built = function(**kwargs)
    except USER_CODE_ERRORS as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{fn} builds a reward function and could not be called with {kwargs}: {reason}") from error
    if not callable(built):
        raise ValueError(f"{fn} takes no completions, and what it returns is no function but {type(built).__name__}")
    return built, {}


def accepted_arguments(function: Callable) -> tuple[list[str], bool]:
    """Names of the keyword arguments that a callable takes, and whether it takes any (`**kwargs`)."""
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)], takes_all


def _settings_without_default(function: Callable) -> list[str]:
    """Arguments annotated as one number or text that the caller has to give: a column would be a list."""
    scalars = {kind: kind for kind in (int, float, str, bool)} | {
        kind.__name__: kind for kind in (int, float, str, bool)
    }
    return [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and isinstance(parameter.annotation, type | str)
        and parameter.annotation in scalars
        and parameter.kind is not parameter.VAR_KEYWORD
    ]


def validate(specs: Iterable[Any]) -> None:
    """Check that every spec names a function that exists and can be called; ValueError says in one line what is wrong.

    Nothing is scored. Short names are only looked up; modules and files of the user are imported.
    """
    labels: set[str] = set()
    specs = list(specs)
    if not specs:
        raise ValueError("rewards: the list is empty; name at least one, such as {fn: task_check}")
    for spec in specs:
        try:
            bind(spec.fn, dict(spec.kwargs))
        except ValueError as error:
            raise ValueError(f"rewards: {error}") from error
        if spec.label in labels:
            raise ValueError(f"rewards: two entries are called {spec.label!r}; give one of them another `name`")
        labels.add(spec.label)
    for spec in specs:
        if spec.fallback_for is None:
            continue
        others = sorted(labels - {spec.label})
        if spec.fallback_for not in others:
            raise ValueError(
                f"rewards: {spec.label} is a fallback for {spec.fallback_for!r}, but the other entries are called "
                f"{', '.join(others) or 'nothing: there is none'}{nearest(spec.fallback_for, others)}"
            )


def _short_name(name: str) -> Callable:
    if name not in SHORT_NAMES:
        raise ValueError(
            f"no reward function is called {name!r}{nearest(name, SHORT_NAMES)}; there are: "
            f"{', '.join(sorted(SHORT_NAMES))}; or write pkg.module:function or ./file.py:function"
        )
    module, attribute = SHORT_NAMES[name]
    return getattr(importlib.import_module(f"{__package__}.{module}"), attribute)


def _module_from_name(place: str, fn: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except USER_CODE_ERRORS as error:
        hint = f"; for a file write ./{place}.py:..." if Path(f"{place}.py").exists() else ""
        raise ValueError(f"cannot import the module of {fn}: {type(error).__name__}: {error}{hint}") from error


def _module_from_file(place: str) -> ModuleType:
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise ValueError(f"there is no reward file {place} (looked for {path})")
    # One module object per file, so that a function keeps its state however often it is resolved.
    name = f"_reward_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    with _IMPORTING:  # or a second thread is handed a module whose functions are not there yet
        return sys.modules.get(name) or _executed(name, place, path)


def _executed(name: str, place: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None  # a .py file always has one
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except USER_CODE_ERRORS as error:  # told with the file's name
        del sys.modules[name]
        raise ValueError(f"importing {place} failed: {type(error).__name__}: {error}") from error
    return module
