"""Sandboxes shared by the tests of this folder, and the catalogue of hostile programs."""

import pathlib
import re

import pytest

from sandboxes import Limits, Sandbox, SandboxError

CATALOGUE = pathlib.Path(__file__).parent / "hostile"


def hostile_programs() -> list[tuple[str, str, set[str]]]:
    """(name, source, acceptable outcomes) of every program in the catalogue."""
    found = []
    for path in sorted(CATALOGUE.glob("*.txt")):
        for header, source in re.findall(r"^%% (.*)\n((?:(?!%%).*\n)*)", path.read_text(), re.M):
            name, _, outcomes = header.partition(" | ")
            found.append((f"{path.stem}/{name}", source, set(outcomes.split())))
    return found


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
