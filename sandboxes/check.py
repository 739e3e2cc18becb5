"""Prints what this machine's sandbox is worth: the tier, what it lacks, and the conformance table.

Run as `python -m sandboxes check [--tier A|B|C] [--backend NAME] [--slots N]`; exit status 0 if everything conforms.
Uses the public interface only.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from sandboxes import conformance
from sandboxes.contract import SandboxError
from sandboxes.pool import Sandbox

TIER_MEANING = {
    "A": "namespaces, private root, Landlock, seccomp, rlimits",
    "B": "Landlock, seccomp, rlimits; no namespaces",
    "C": "rlimits only: NOT isolated",
    "remote": "whatever the service does",
}


def main(argv: Sequence[str] | None = None, program: str = "python -m sandboxes check") -> int:
    """Runs the check under the name `program`; the exit status is 0 if all conforms, 1 if not, 2 without a sandbox."""
    options = _parse(argv, program)
    started = time.perf_counter()
    try:
        weak = options.tier == "C" or options.allow_weak
        sandbox = Sandbox(options.slots, tier=options.tier, backend=options.backend, allow_weak_sandbox=weak).start()
    except SandboxError as error:
        print(f"no sandbox: {error}")
        return 2
    except ValueError as error:  # an option out of range
        print(f"error: {error}", file=sys.stderr)
        return 2
    with sandbox:
        _print_report(sandbox, time.perf_counter() - started)
        results = list(conformance.run(sandbox))
    for result in results:
        print(_row(result))
    failed = sum(not result.ok for result in results)
    print(f"{len(results) - failed} of {len(results)} conform")
    return 1 if failed else 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def _parse(argv: Sequence[str] | None, program: str) -> argparse.Namespace:
    parser = _Parser(prog=program, description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--tier", choices=("auto", "A", "B", "C"), default="auto", help="C is opted into by naming it")
    parser.add_argument("--backend", default="local", help="local, bubblewrap, docker:IMAGE, podman:IMAGE or a URL")
    parser.add_argument("--allow_weak", action="store_true", help="use a service that does not deny all it should")
    parser.add_argument("--slots", type=int, default=None, help="programs at a time")
    return parser.parse_args(argv)


def _print_report(sandbox: Sandbox, start_seconds: float) -> None:
    report = sandbox.report
    print(
        f"tier {report.tier}, {report.backend}: {TIER_MEANING[report.tier]}; "
        f"{sandbox.num_slots} slots, started in {start_seconds:.2f} s"
    )
    for tier, reason in report.refused.items():
        print(f"  tier {tier} refused: {reason}")
    for layer in report.lacks:
        print(f"  without {layer}")
    for item in report.missing:
        print(f"  NOT denied: {item}")


def _row(result: conformance.Result) -> str:
    verdict = result.verdict
    if isinstance(verdict, SandboxError):
        return f"FAIL {result.case.name:32} sandbox error: {verdict}"
    mark = "ok  " if result.ok else "FAIL"
    detail = (
        ""
        if result.ok
        else f"  expected {'/'.join(o.value for o in result.case.outcomes)}: {verdict.detail} {verdict.stderr[-200:]}"
    )
    return f"{mark} {result.case.name:32} {verdict.outcome.value:13} {1e3 * verdict.cpu_seconds:7.1f} ms CPU{detail}"


if __name__ == "__main__":
    sys.exit(main())
