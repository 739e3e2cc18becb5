"""The program of a math worker: reads pairs of formulas, one JSON line each, and answers whether math-verify finds
them equal. It may assume to be killed at any time. It will not use math-verify's plain-expression reader, which is
sympy's `parse_expr`: formulas are read as LaTeX only.
"""

import json
import os
import resource
import sys

MEMORY_BYTES = 1 << 30
INPUT_CHARACTERS = 2_000


def main() -> None:
    sys.path.extend(path for path in json.loads(sys.argv[1]) if path not in sys.path)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing that a library prints can pass for an answer
    import logging

    import math_verify

    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        equal = all(equal_formulas(math_verify, *pair, job["seconds"]) for pair in job["pairs"])
        print(json.dumps({"equal": equal}), file=answers, flush=True)


def equal_formulas(math_verify: object, prediction: str, gold: str, seconds: float) -> bool:
    """True if math-verify parses both formulas and finds them equal to 12 digits."""
    if len(prediction) > INPUT_CHARACTERS:
        return False
    settings = [math_verify.LatexExtractionConfig(boxed_match_priority=0)]
    alarm = max(1, int(seconds / 2))
    sides = [
        math_verify.parse(
            rf"\boxed{{{text}}}",
            settings,
            fallback_mode="no_fallback",
            extraction_mode="first_match",
            parsing_timeout=alarm,
        )
        for text in (gold, prediction)
    ]
    if not all(sides):
        return False
    return math_verify.verify(*sides, float_rounding=12, numeric_precision=20, timeout_seconds=alarm)


if __name__ == "__main__":
    main()
