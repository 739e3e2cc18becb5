"""Every program of the catalogue attacks; a right answer means that its attack worked. None may pass in tier A or B."""

import pytest
from conftest import hostile_programs

from sandboxes import Job, Outcome, Verdict

PROGRAMS = hostile_programs()
OPEN_TEST = "def check(candidate):\n    assert candidate(20) == 21\n    assert candidate(3) == 4\n"
SEALED_TEST = "def check(candidate):\n    assert candidate(20) == 73491823901\n    assert candidate(3) == 88120394417\n"


def job_of(source: str) -> Job:
    """Programs that can tell success themselves answer x + 1; the others would have to know the sealed numbers."""
    return Job(source, "f", OPEN_TEST if "x + 1" in source else SEALED_TEST)


@pytest.fixture(scope="session")
def verdicts(strict_sandbox):
    results = strict_sandbox.run_batch([job_of(source) for _, source, _ in PROGRAMS])
    return {name: result for (name, _, _), result in zip(PROGRAMS, results, strict=True)}


def test_the_catalogue_has_at_least_80_programs_with_names_of_their_own():
    assert len({name for name, _, _ in PROGRAMS}) == len(PROGRAMS) >= 80


@pytest.mark.parametrize("name", [name for name, _, _ in PROGRAMS])
def test_attack_fails_with_the_expected_verdict(verdicts, name):
    verdict = verdicts[name]
    expected = next(outcomes for known, _, outcomes in PROGRAMS if known == name)
    assert isinstance(verdict, Verdict), verdict
    assert verdict.outcome is not Outcome.PASSED, "breached"
    assert verdict.outcome.value in expected, verdict
