"""From a `Job` to what goes over the wire to a judge, or to the answer that needs no judge.

Pure functions of the job; nothing is run here.
"""

from __future__ import annotations

from typing import Any

from sandboxes import codec
from sandboxes.contract import Job, JobError, Limits, Outcome, SandboxError, Verdict

# A test that runs beside the program. Whatever it reports, the program could have reported itself.
_BESIDE = """{source}


{test}


def _check_in_sandbox():
    try:
        check({entry_point})
    except AssertionError:
        return False
    return True
"""


def request(job: Job, limits: Limits, allow_tests_in_sandbox: bool) -> dict[str, Any] | Verdict | SandboxError:
    """The wire form of `job`; a REJECTED verdict for a program that cannot even be sent, a JobError for a bad test."""
    try:
        num_bytes = len(job.source) if len(job.source) > limits.source_bytes else len(job.source.encode())
    except UnicodeEncodeError:
        return Verdict(Outcome.REJECTED, detail="the source is not valid Unicode")
    if num_bytes > limits.source_bytes:
        return Verdict(Outcome.REJECTED, detail=f"the source exceeds {limits.source_bytes} bytes")
    if job.test_in_sandbox:
        return (
            _in_sandbox(job)
            if allow_tests_in_sandbox
            else JobError("test_in_sandbox needs allow_tests_in_sandbox=True")
        )
    wire = {"source": job.source, "entry_point": job.entry_point, "stop_at_failure": job.stop_at_failure}
    if job.cases is not None:
        cases = [[stdin, expected] for stdin, expected in job.cases]
        return {**wire, "cases": cases, "comparison": job.comparison, "float_tolerance": job.float_tolerance}
    if job.calls is None:
        return {**wire, "test": job.test, "prelude": job.prelude}
    try:
        return {**wire, "calls": codec.encode([tuple(call) for call in job.calls], codec.ARGUMENT_DEPTH).decode()}
    except ValueError as error:
        return JobError(f"a call or an expected value is not data: {error}")


def _in_sandbox(job: Job) -> dict[str, Any]:
    """The program with its test appended, as one call that should return True. The test sees the program's names."""
    source = _BESIDE.format(source=job.source, test=job.test, entry_point=job.entry_point)
    calls = codec.encode([((), {}, True)], 4).decode()
    return {"source": source, "entry_point": "_check_in_sandbox", "calls": calls, "stop_at_failure": True}
