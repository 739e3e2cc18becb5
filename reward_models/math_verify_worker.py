"""The program of a math worker: reads pairs of formulas, one JSON line each, and answers whether math-verify finds
them equal. It may assume to be killed at any time. It will not use math-verify's plain-expression reader, which is
sympy's `parse_expr`: formulas are read as LaTeX only.
"""

import json
import os
import resource
import signal
import sys
from types import ModuleType
from typing import Any

MEMORY_BYTES = 1 << 30
INPUT_CHARACTERS = 2_000
MAX_LETTERS = 8
POINTS = (7, 97, 1009)  # numerators of the values that letters take, over 11
RELATIVE, EXACT = 1e-12, 1e-900  # decimals are compared to 12 digits, exact formulas exactly


class OutOfTime(BaseException):
    """Raised by a signal in the middle of sympy, which catches every Exception."""


def main() -> None:
    sys.path.extend(path for path in json.loads(sys.argv[1]) if path not in sys.path)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing that a library prints can pass for an answer
    import logging

    import math_verify

    logging.disable(logging.CRITICAL)
    equal_formulas(math_verify, "\\sqrt{4}", "2")  # sympy imports much on first use: not on an answer's time
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    print(json.dumps({"ready": True}), file=answers, flush=True)
    signal.signal(signal.SIGVTALRM, out_of_time)
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps({"equal": answer(math_verify, job["pairs"], job["seconds"])}), file=answers, flush=True)


def answer(math_verify: ModuleType, pairs: list[list[str]], seconds: float) -> bool:
    """True if all pairs are equal; False if that is not found out within half of `seconds` of CPU time.

    A signal ends Python code. At the full time the kernel ends the process, as it must where C code does not return:
    10^{10^{10}} is one call. CPU time counts, so that a busy machine does not turn right answers into wrong ones.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF is not handled: it kills
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds / 2)
    try:
        return all(equal_formulas(math_verify, *pair) for pair in pairs)
    except OutOfTime:
        return False
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)


def out_of_time(*_: object) -> None:
    raise OutOfTime


def equal_formulas(math_verify: ModuleType, prediction: str, gold: str) -> bool:
    """True if math-verify parses both formulas and finds them equal, and they do not differ at any point tried."""
    import sympy

    if len(prediction) > INPUT_CHARACTERS:
        return False
    config = math_verify.LatexExtractionConfig(boxed_match_priority=0, normalization_config=as_written())
    options = {
        "extraction_config": [config],
        "fallback_mode": "no_fallback",
        "extraction_mode": "first_match",
        "parsing_timeout": None,
    }
    sides = [math_verify.parse(rf"\boxed{{{text}}}", **options) for text in (gold, prediction)]
    if not all(sides):
        return False
    for side in sides:
        side[0] = with_plain_letters(sympy, side[0])
    equations = [isinstance(side[0], sympy.Eq) for side in sides]
    if all(equations) and same_equation(sympy, sides[0][0], sides[1][0]):
        return True
    if equations[0] != equations[1] or refuted(sympy, sides[0][0], sides[1][0]):
        return False  # an equation is not its right side
    return math_verify.verify(*sides, float_rounding=12, numeric_precision=20, timeout_seconds=None)


def refuted(sympy: ModuleType, gold: Any, prediction: Any) -> bool:
    """True if two formulas differ in value at a point: quicker than algebra, and sharper than math-verify, whose
    absolute tolerance takes 10^{-40} pi for 10^{-50} pi. The difference is computed to 30 significant digits.
    """
    if not (isinstance(gold, sympy.Expr) and isinstance(prediction, sympy.Expr)):
        return False
    letters = sorted(gold.free_symbols | prediction.free_symbols, key=str)
    approximate = gold.has(sympy.Float) or prediction.has(sympy.Float)
    for start in POINTS if letters else POINTS[:1]:
        point = {letter: sympy.Rational(start + 2 * i, 11 + i) for i, letter in enumerate(letters[:MAX_LETTERS])}
        try:
            values = [side.subs(point) for side in (gold, prediction)]
            difference, size = (sympy.N(v, 30, maxn=1_000) for v in (values[0] - values[1], values[0]))
            if difference.is_number and size.is_number and difference.is_finite and (not letters or size.is_real):
                bound = sympy.Abs(size) * (RELATIVE if approximate else EXACT)
                return bool(sympy.Abs(difference) > bound and significant(difference))
        except (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError):
            return False  # undefined here, or no number at all: algebra decides
    return False


def with_plain_letters(sympy: ModuleType, formula: Any) -> Any:
    """The formula with each letter as one symbol (math-verify reads the i of 3i and of 3 \\cdot i as two), i as the
    imaginary unit, and 1 \\cdot x as x.
    """
    if not isinstance(formula, sympy.Expr):
        return formula
    letters = {s: sympy.I if s.name == "i" else sympy.Symbol(s.name, real=True) for s in formula.free_symbols}
    return formula.xreplace(letters).doit()


def same_equation(sympy: ModuleType, gold: Any, prediction: Any) -> bool:
    """True if one equation is a multiple of the other: x^2 - 5x + 6 = 0 and 2x^2 - 10x + 12 = 0."""
    try:
        ratio = sympy.simplify((gold.lhs - gold.rhs) / (prediction.lhs - prediction.rhs))
    except (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError):
        return False
    return bool(ratio.is_number and ratio.is_finite and ratio != 0)


def as_written() -> Any:
    """math-verify's clean-up of LaTeX without its list of units: the h of 10\\pi h may be a height."""
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig

    return NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
    )


def significant(difference: Any) -> bool:
    """True if the difference has digits that count, and is not what is left of two equal numbers."""
    real = difference.as_real_imag()
    return any(getattr(part, "_prec", 1) > 1 and part != 0 for part in real) or bool(difference.is_Rational)


if __name__ == "__main__":
    main()
