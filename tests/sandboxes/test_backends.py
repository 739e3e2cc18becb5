"""Other backends behind the same door. Each gives the conformance suite's verdicts; what is not here is skipped."""

import os
import shutil
import subprocess

import pytest
from run_code_service import service
from sandbox_helpers import hostile_programs, job_of, wait_until

from sandboxes import Job, Limits, Outcome, Sandbox, SandboxError, Verdict, conformance

CONTAINER = os.environ.get("SANDBOX_TEST_CONTAINER", "")  # docker:IMAGE or podman:IMAGE, on a machine that has one
RIGHT = "def f(x):\n    return x + 1\n"
LIMITS = Limits(cpu_seconds=1.0, wall_seconds=20.0, idle_seconds=1.0)
# A service limits neither of these: they need namespaces and a file system per job.
NOT_DENIED_REMOTELY = {"starts a process", "opens a socket", "reads the host", "finds a file left"}
# It counts wall time only, and its own cut comes before our limit on output.
OTHERWISE_REMOTELY = {"busy for ever": Outcome.TIMEOUT_WALL, "too much output": Outcome.TIMEOUT_WALL}


@pytest.fixture(scope="module")
def bubblewrap():
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    try:
        with Sandbox(num_slots=2, limits=LIMITS, backend="bubblewrap") as running:
            yield running
    except SandboxError as error:
        pytest.skip(f"bubblewrap does not work here: {error}")


@pytest.fixture(scope="module")
def remote():
    with service() as url, Sandbox(num_slots=2, backend=url, allow_weak_sandbox=True) as running:
        yield running


@pytest.fixture(scope="module")
def container():
    if not CONTAINER:
        pytest.skip("SANDBOX_TEST_CONTAINER names no container")
    with Sandbox(num_slots=2, limits=LIMITS, backend=CONTAINER) as running:
        yield running


def breaches(sandbox: Sandbox) -> dict[str, Verdict | SandboxError]:
    """The hostile programs that passed, or ended in a way that is not theirs."""
    programs = hostile_programs()
    results = sandbox.run_batch([job_of(source) for _, source, _ in programs])
    return {
        name: result
        for (name, _, outcomes), result in zip(programs, results, strict=True)
        if not isinstance(result, Verdict) or result.passed or result.outcome.value not in outcomes
    }


def test_bubblewrap_conforms_and_claims_tier_a(bubblewrap):
    assert [(result.case.name, result.verdict) for result in conformance.run(bubblewrap) if not result.ok] == []
    assert (bubblewrap.report.tier, bubblewrap.report.backend) == ("A", "bubblewrap")
    assert bubblewrap.report.missing == ()


def test_no_hostile_program_breaches_bubblewrap(bubblewrap):
    assert breaches(bubblewrap) == {}


def test_a_container_conforms_and_claims_tier_a(container):
    assert [(result.case.name, result.verdict) for result in conformance.run(container) if not result.ok] == []
    assert (container.report.tier, container.report.missing) == ("A", ())


def test_no_hostile_program_breaches_a_container(container):
    many_files = ("exhaust_inodes", "deep_directories", "files_below_more_directories_than_a_path_can_name")
    assert set(breaches(container)) <= (
        {f"resources/{name}" for name in many_files} if container.report.lacks else set()
    )
    assert container.report.lacks in ((), ("limit on the number of files",))  # podman: the memory limit bounds them


def test_a_killed_container_is_replaced_and_its_slot_leaves_none_behind(container):
    assert container.run(Job(RIGHT, "f", conformance.TEST)).passed
    before = running_containers()
    assert before
    subprocess.run([engine(), "kill", *before], capture_output=True, check=True)
    assert all(result.passed for result in container.run_batch([Job(RIGHT, "f", conformance.TEST)] * 8))
    container.close()
    wait_until(lambda: running_containers() == [])


def engine() -> str:
    return CONTAINER.partition(":")[0]


def running_containers() -> list[str]:
    command = [engine(), "ps", "--quiet", "--filter", "name=sandbox-"]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()


def test_a_service_that_denies_little_must_be_allowed_and_is_named_in_the_report(remote):
    assert remote.report.tier == "remote"
    assert "start a process" in remote.report.missing
    with service() as url, pytest.raises(SandboxError, match="start a process"):
        Sandbox(num_slots=1, backend=url).start()


def test_a_service_gives_the_verdicts_of_the_conformance_suite(remote):
    limits = Limits(cpu_seconds=2.0, wall_seconds=4.0)
    cases = [case for case in conformance.CASES if case.name not in NOT_DENIED_REMOTELY]
    results = remote.run_batch([Job(case.source, "f", conformance.TEST, limits=limits) for case in cases])
    for case, result in zip(cases, results, strict=True):
        assert isinstance(result, Verdict), (case.name, result)
        assert result.outcome in (*case.outcomes, OTHERWISE_REMOTELY.get(case.name)), (case.name, result)


def test_a_service_answers_calls_that_depend_on_earlier_answers(remote):
    chain = "def check(candidate):\n    x = 0\n    for _ in range(5):\n        x = candidate(x)\n    assert x == 5\n"
    assert remote.run(Job(RIGHT, "f", chain)).passed
    wrong = remote.run(Job("def f(x):\n    return x + 2\n", "f", chain))
    assert (wrong.outcome, wrong.forgeable) == (Outcome.WRONG_ANSWER, False)


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.write(1, b'V' + b'Mg==\\n' * 9)\nos._exit(0)\n",
        "import os\nfor n in (1, 2, 3):\n    os.write(n, b'passed\\n')\nos._exit(0)\n",
        "import sys\nsys.modules['sandboxes.worker'].VALUE = b'passed'\ndef f(x):\n    return 7\n",
        "class E(int):\n    __eq__ = bool\ndef f(x):\n    return E(x)\n",
    ],
)  # fmt: skip
def test_a_program_on_a_service_cannot_forge_a_verdict(remote, source):
    assert not remote.run(Job(source, "f", conformance.TEST)).passed


def test_a_service_that_fails_or_is_gone_is_an_error_and_never_a_verdict():
    with service(broken=True) as url, pytest.raises(SandboxError, match="out of order"):
        Sandbox(num_slots=1, backend=url, allow_weak_sandbox=True).start()
    with service() as url:
        running = Sandbox(num_slots=1, backend=url, allow_weak_sandbox=True).start()
    with running, pytest.raises(SandboxError, match="refused"):
        running.run(Job(RIGHT, "f", conformance.TEST))
    assert running.num_unscored == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"backend": "chroot"},
        {"backend": "docker:"},
        {"backend": "bubblewrap", "tier": "B"},
        {"backend": "http://127.0.0.1:1", "packages": ("numpy",)},
    ],
)
def test_senseless_backends_are_refused(arguments):
    with pytest.raises(ValueError, match=r"backend|runs programs"):
        Sandbox(**arguments)


def test_a_missing_engine_is_an_error_that_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    for backend in ("bubblewrap", "docker:some-image"):
        with pytest.raises(SandboxError, match="PATH"):
            Sandbox(num_slots=1, backend=backend).start()


def test_a_test_beside_the_program_must_be_allowed_and_its_verdict_says_that_it_can_be_forged():
    shares_objects = "def check(candidate):\n    seen = []\n    candidate(seen.append)\n    assert seen == [1]\n"
    job = Job("def f(tell):\n    tell(1)\n", "f", shares_objects, test_in_sandbox=True)
    with Sandbox(num_slots=1) as sandbox, pytest.raises(SandboxError, match="allow_tests_in_sandbox=True"):
        sandbox.run(job)
    with Sandbox(num_slots=1, allow_tests_in_sandbox=True) as sandbox:
        verdict = sandbox.run(job)
        assert (verdict.passed, verdict.forgeable) == (True, True)
        wrong = sandbox.run(Job("def f(tell):\n    tell(2)\n", "f", shares_objects, test_in_sandbox=True))
        assert (wrong.outcome, wrong.forgeable) == (Outcome.WRONG_ANSWER, True)
    with pytest.raises(ValueError, match="test_in_sandbox needs test="):
        Job("def f(): pass", "f", calls=[((), {}, None)], test_in_sandbox=True)
