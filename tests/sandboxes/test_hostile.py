"""Every program of the catalogue attacks; a right answer means that its attack worked. None may pass in tier A or B."""

import pytest
from sandbox_helpers import SEALED_TEST, hostile_programs, job_of

from sandboxes import Outcome, Verdict

PROGRAMS = hostile_programs()


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
    source = next(source for known, source, _ in PROGRAMS if known == name)
    if job_of(source).test == SEALED_TEST:  # partial credit cannot be had either
        assert verdict.passed_fraction == 0, verdict
