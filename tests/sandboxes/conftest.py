"""Sandboxes shared by the tests of this folder."""

import pytest

from sandboxes import Limits, Sandbox, SandboxError


@pytest.fixture(scope="session")
def sandbox():
    """The best sandbox of this machine, default limits, two slots."""
    with Sandbox(num_slots=2) as running:
        yield running


@pytest.fixture(scope="session", params=["A", "B"])
def strict_sandbox(request):
    """A sandbox of each strong tier with short limits, so that programs that hang do not hold up the tests."""
    limits = Limits(cpu_seconds=1.0, wall_seconds=20.0, idle_seconds=1.0)
    try:
        with Sandbox(num_slots=4, limits=limits, tier=request.param) as running:
            yield running
    except SandboxError as error:
        pytest.skip(f"tier {request.param} is not to be had on this machine: {error}")
