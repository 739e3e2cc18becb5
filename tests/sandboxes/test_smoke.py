"""The shortest proof that the sandbox runs, judges and refuses."""

import pytest

from sandboxes import Job, Outcome, Sandbox

TEST = "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(5) == 6\n"


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(num_slots=1) as running:
        yield running


def test_a_right_program_passes_and_a_wrong_one_does_not(sandbox):
    assert sandbox.run(Job("def f(x):\n    return x + 1\n", "f", TEST)).outcome is Outcome.PASSED
    assert sandbox.run(Job("def f(x):\n    return 2\n", "f", TEST)).outcome is Outcome.WRONG_ANSWER
