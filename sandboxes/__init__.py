"""Runs untrusted Python for rewards and benchmarks: fast, isolated by the kernel, judged outside the program's process.

Standard library only; Linux. See docs/sandbox.md for the threat model.
Exit status, printed text and anything the program claims never mean success.
"""

from sandboxes.contract import Job, JobError, Limits, Outcome, SandboxError, Verdict
from sandboxes.grade import assert_list, grade, grade_io, shared_sandbox
from sandboxes.pool import Sandbox, probe

__all__ = [
    "Job",
    "JobError",
    "Limits",
    "Outcome",
    "Sandbox",
    "SandboxError",
    "Verdict",
    "assert_list",
    "grade",
    "grade_io",
    "probe",
    "shared_sandbox",
]
