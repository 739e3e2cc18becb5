"""How many torch threads a CPU run takes: the free cores, shared by the processes of the machine."""

import pytest

from rl_distill.distributed import choose_threads


@pytest.mark.parametrize(
    ("cores", "busy_percent", "processes", "expected"),
    [(8, 0.0, 1, 8), (8, 50.0, 1, 4), (8, 0.0, 2, 4), (2, 100.0, 1, 1), (2, 4.0, 1, 2), (1, 100.0, 4, 1)],
)
def test_threads_are_the_free_cores_per_process(monkeypatch, cores, busy_percent, processes, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: busy_percent)
    monkeypatch.setattr("psutil.cpu_count", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert choose_threads(None) == expected


def test_a_wanted_number_is_taken_as_it_is():
    assert choose_threads(3) == 3
    assert choose_threads(0) == 1
