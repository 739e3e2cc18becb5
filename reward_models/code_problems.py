"""From the columns of a data set to what judges a program: a test, asserts, calls, or cases of input and output.

It may assume rows as the hub has them (HumanEval, MBPP, APPS, TACO, Codeforces, CodeContests, LiveCodeBench, LeetCode),
nested values as JSON or as objects. It will not run anything, and a row of none of these shapes is no code problem.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import pickle
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Comparison = Literal["tokens", "lines", "exact"]
Case = tuple[str, str]

# Columns that hold cases of input and output, each in its own way, and those that say more about a code problem.
CASE_COLUMNS = ("official_tests", "tests", "test_cases", "public_tests", "private_tests", "generated_tests")
DETAIL_COLUMNS = (
    *("test", "entry_point", "code_prompt", "starter_code", "test_list", "test_setup_code", "test_imports", "metadata"),
    *("input_output", "public_test_cases", "private_test_cases", "verification_info", "examples", "inputs", "outputs"),
)
CODE_COLUMNS = CASE_COLUMNS + DETAIL_COLUMNS
# What LeetCode has imported before a solution; `builtins` comes last, or math's `pow` would take its place.
CLASS_IMPORTS = (
    "".join(
        f"from {module} import *\n"
        for module in ("bisect", "collections", "functools", "heapq", "itertools", "math", "typing", "builtins")
    )
    + "import bisect, collections, copy, functools, heapq, itertools, math, operator, re, string, sys\n"
)
REAL = re.compile(r"(?<![\w.])[-+]?\d*\.\d+(?![\w.])")
PLAIN = """from math import inf, nan


def plain(value):
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


"""


@dataclass(frozen=True)
class Check:
    """What judges the programs of one problem: `cases` of input and output, else `test`, which calls `entry_point`.

    `head` is what the program begins with where the problem says so, `imports` what its judge has imported for it.
    """

    entry_point: str = ""
    test: str = ""
    cases: tuple[Case, ...] = ()
    comparison: Comparison = "tokens"
    float_tolerance: float | None = None
    head: str | None = None
    imports: str = ""


def check_of(row: Mapping[str, Any]) -> Check | None:
    """The check that the columns of a row describe; None if it is no code problem.

    ValueError, in one line, for a column of a benchmark's name that does not hold what the benchmark has there.
    """
    head = row.get("code_prompt") or row.get("starter_code") or None
    if row.get("test") and row.get("entry_point"):
        return _function(row["entry_point"], row["test"], head)
    if row.get("test_list"):
        return _assert_list(row, head)
    if row.get("public_test_cases") or row.get("private_test_cases"):
        return _livecodebench(row, head)
    if row.get("input_output"):
        return _apps(_parsed("input_output", row["input_output"]), head)
    cases = [case for name in CASE_COLUMNS for case in _cases(name, row.get(name))]
    if cases:
        cases = [*_cases("examples", row.get("examples")), *cases]
    if row.get("verification_info"):
        info = _parsed("verification_info", row["verification_info"])
        cases += _cases("verification_info", info.get("test_cases") if isinstance(info, dict) else info)
    if isinstance(row.get("inputs"), list) and isinstance(row.get("outputs"), list):
        cases += _pairs("inputs", row["inputs"], row["outputs"])
    return _input_output(cases) if cases else None


def _input_output(
    cases: list[Case], comparison: Comparison = "tokens", float_tolerance: float | None = None
) -> Check | None:
    """A check of each distinct case; real numbers may differ by 1e-6 where the expected outputs have any."""
    if not cases:
        return None
    if float_tolerance is None and any(REAL.search(output) for _, output in cases):
        float_tolerance = 1e-6
    return Check(cases=tuple(dict.fromkeys(cases)), comparison=comparison, float_tolerance=float_tolerance)


def _function(entry_point: str, test: str, head: str | None) -> Check:
    imports = CLASS_IMPORTS if entry_point.startswith("Solution(") else ""
    return Check(entry_point, test, head=head, imports=imports)


def _assert_list(row: Mapping[str, Any], head: str | None) -> Check:
    """MBPP, and MBPP+ whose column `test` has the larger set of inputs for the function that the asserts name."""
    from sandboxes import JobError, assert_list

    imports = row.get("test_imports") or []
    setup = "\n".join([*([imports] if isinstance(imports, str) else imports), row.get("test_setup_code") or ""])
    try:
        test, entry_point = assert_list(list(row["test_list"]), setup.strip())
    except JobError as error:
        raise ValueError(f"column test_list: {error}") from error
    return Check(entry_point, row.get("test") or test, head=head)


def _livecodebench(row: Mapping[str, Any], head: str | None) -> Check | None:
    cases = [
        case
        for name in ("public_test_cases", "private_test_cases")
        for case in _items(name, _parsed(name, row.get(name) or "[]"))
    ]
    if all(case.get("testtype") != "functional" for case in cases):
        pairs = [_pair(case["input"], case["output"]) for case in cases]
        return _input_output(pairs, comparison="lines", float_tolerance=0.0)  # as decimal numbers: 0.5 is 0.50
    metadata = _parsed("metadata", row.get("metadata") or "{}")
    if not metadata.get("func_name"):
        raise ValueError("column metadata: a functional problem of LiveCodeBench has its func_name there")
    calls = [
        ([_value(line) for line in case["input"].split("\n") if line.strip()], [_value(case["output"])])
        for case in cases
    ]
    return _function(f"Solution().{metadata['func_name']}", _calls(calls), head)


def _apps(problem: Any, head: str | None) -> Check | None:
    """APPS and TACO: cases, or calls where it names a function; an output may then be wrapped in a list."""
    if not isinstance(problem, dict) or "inputs" not in problem or "outputs" not in problem:
        raise ValueError("column input_output: expected an object with inputs and outputs, as APPS has it")
    inputs, outputs = problem["inputs"], problem["outputs"]
    if not inputs:
        return None
    if not problem.get("fn_name"):
        return _input_output(_pairs("input_output", inputs, outputs))
    calls = [
        (arguments, [output, output[0]] if isinstance(output, list) and output else [output])
        for arguments, output in zip(inputs, outputs, strict=True)
    ]
    in_class = head is not None and "class Solution" in head
    return _function(("Solution()." if in_class else "") + problem["fn_name"], _calls(calls), head)


def _calls(calls: list[tuple[list, list]]) -> str:
    """The test that makes each call and wants one of its values, tuples counting as lists."""
    asserts = (
        f"    assert plain(candidate({', '.join(map(repr, arguments))})) in {expected!r}\n"
        for arguments, expected in calls
    )
    return f"{PLAIN}def check(candidate):\n{''.join(asserts)}"


def _cases(name: str, value: Any) -> list[Case]:
    """Cases in one of the usual forms: a list of {input, output}, or {input: [...], output: [...]}; else none."""
    found = _parsed(name, value) if value and not (isinstance(value, str) and value.lstrip()[:1] not in "[{") else None
    if isinstance(found, dict):
        inputs, outputs = (found.get(key, found.get(f"{key}s")) for key in ("input", "output"))
        return _pairs(name, inputs, outputs) if isinstance(inputs, list) and isinstance(outputs, list) else []
    if not isinstance(found, list) or not all(isinstance(c, dict) and {"input", "output"} <= set(c) for c in found):
        return []
    return [_pair(case["input"], case["output"]) for case in found]


def _items(name: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(c, dict) and {"input", "output"} <= set(c) for c in value):
        raise ValueError(f"column {name}: expected a list of cases with input and output")
    return value


def _pairs(name: str, inputs: list, outputs: list) -> list[Case]:
    if len(inputs) != len(outputs):
        raise ValueError(f"column {name}: {len(inputs)} inputs, but {len(outputs)} outputs")
    return [_pair(given, wanted) for given, wanted in zip(inputs, outputs, strict=True)]


def _pair(given: Any, wanted: Any) -> Case:
    """A case as text; some rows hold a list of lines."""
    return _text(given), _text(wanted)


def _text(value: Any) -> str:
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _value(text: str) -> Any:
    """A value of LiveCodeBench: JSON, or a bare text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _parsed(name: str, value: Any) -> Any:
    return _decoded(name, value) if isinstance(value, str) else value


@functools.lru_cache(maxsize=1024)
def _decoded(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:  # LiveCodeBench packs its private tests; nothing but texts is unpacked
        return json.loads(_PlainUnpickler(io.BytesIO(zlib.decompress(base64.b64decode(text)))).load())
    except (ValueError, TypeError, zlib.error, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"column {name}: expected JSON, found {text[:60]!r}") from error


class _PlainUnpickler(pickle.Unpickler):
    """Reads texts and containers; a pickle that names a class or a function is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} in a pickle of tests")
