"""Sampling that follows success: on synthetic curves of success, by hand, and resumed in the middle."""

import json
import math
import random

import pytest

from rl_distill.config import SamplingConfig
from rl_distill.data.adaptive import LearningProgress, PromptPools, WeakTasks, make_sampler, standard_error
from rl_distill.types import Problem

KINDS = ("weak_tasks", "learning_progress", "prompt_pools")


def problems(**sizes):
    return [Problem(task, f"{task}{i}", f"{task} {i}") for task, n in sizes.items() for i in range(n)]


def sampler(kind, number=40, seed=0, sizes=None, **settings):
    found = problems(**(sizes or {"easy": 200, "hard": 200, "unsolvable": 200}))
    return make_sampler(found, number, seed, SamplingConfig(kind=kind, **settings), None)


def answers(found, step, rates, draw):
    """One step: draws the prompts and solves each with the rate of its task; counts the prompts by task."""
    tasks = [found.problems[row].task for row in found.rows(step)]
    found.observe([float(draw.random() < rates[task]) for task in tasks])
    return {task: tasks.count(task) for task in rates}


def simulate(found, steps=200, seed=0):
    """Prompts by task after the first 50 steps, of a student that learns `hard` by being given it."""
    draw, given = random.Random(seed), {"easy": 0, "hard": 0, "unsolvable": 0}
    late = dict.fromkeys(given, 0)
    for step in range(steps):
        hard = 0.1 + 0.8 * (1 - math.exp(-given["hard"] / 2500))
        counts = answers(found, step, {"easy": 0.95, "hard": hard, "unsolvable": 0.0}, draw)
        given = {task: given[task] + counts[task] for task in given}
        late = late if step < 50 else {task: late[task] + counts[task] for task in late}
    return {task: count / sum(late.values()) for task, count in late.items()}


@pytest.mark.parametrize("seed", range(3))
def test_weak_tasks_gives_the_weakest_task_more(seed):
    shares = simulate(sampler("weak_tasks", seed=seed, sizes={"easy": 200, "hard": 200, "unsolvable": 1}), seed=seed)
    assert shares["unsolvable"] < 0.05  # one prompt of 401: its share is by size
    assert shares["hard"] > 0.55 > 0.45 > shares["easy"]


@pytest.mark.parametrize("seed", range(3))
def test_an_unsolvable_task_does_not_swallow_the_budget_under_learning_progress(seed):
    weak, progress = (simulate(sampler(kind, seed=seed), seed=seed) for kind in ("weak_tasks", "learning_progress"))
    assert weak["unsolvable"] > 0.6  # that is what weakness alone does
    assert progress["unsolvable"] < 0.2
    assert progress["hard"] > progress["unsolvable"]


def test_weights_of_weak_tasks_by_hand():
    found = sampler("weak_tasks", target=0.9, temperature=0.5, floor=0.1, sizes={"a": 5, "b": 5})
    found.seen = {"a": [8.0, 10.0], "b": [3.0, 10.0]}  # 0.1 and 0.6 below the target
    pull = math.exp(0.1 / 0.5), math.exp(0.6 / 0.5)
    assert found.shares()["a"] == pytest.approx(0.1 * 0.5 + 0.9 * pull[0] / sum(pull))
    assert sum(found.shares().values()) == pytest.approx(1)


def test_a_group_without_verdicts_keeps_its_own_share():
    found = sampler("weak_tasks", sizes={"a": 5, "b": 5, "text": 10})
    found.seen = {"a": [9.0, 10.0], "b": [1.0, 10.0]}
    assert found.shares()["text"] == 0.5
    assert sum(found.shares().values()) == pytest.approx(1)


def test_progress_counts_both_directions_and_is_beyond_one_standard_error():
    found = sampler("learning_progress", window=1, sizes={"up": 5, "down": 5, "still": 5})
    found.steps = [
        {"up": [10.0, 100.0], "down": [90.0, 100.0], "still": [50.0, 100.0]},
        {"up": [90.0, 100.0], "down": [10.0, 100.0], "still": [54.0, 100.0]},
    ]
    error = math.sqrt(0.25 * 0.02)
    assert found.weights() == {"up": pytest.approx(0.8 - error), "down": pytest.approx(0.8 - error), "still": 0.0}
    assert standard_error([0.0, 10.0], [0.0, 10.0]) == 0.0


def test_successes_decay_only_where_a_group_was_drawn():
    found = sampler("weak_tasks", number=1, decay=0.5, sizes={"a": 3})
    found.rows(0)
    found.observe([1.0, 0.0])
    found.rows(1)
    found.observe([1.0, None])
    assert found.seen == {"a": [1.5, 2.0]}


def test_pools_by_hand():
    found = sampler("prompt_pools", number=4, sizes={"a": 4}, retire_after=2, retest_every=3)
    for step in range(2):
        marks = {0: [1.0, 1.0], 1: [0.0, 0.0], 2: [0.0, 1.0], 3: [None, None]}
        found.observe([mark for row in found.rows(step) for mark in marks[row]])
    assert [found.pool(row) for row in range(4)] == ["retired", "never", "sometimes", "unseen"]
    assert found.metrics()["sampling/pool/retired"] == 1
    found.number = 3
    assert 0 not in found.rows(2)
    assert 0 not in found.rows(3)
    found.number = 4
    assert 0 in found.rows(4)  # due again
    found.observe([0.0] * 4)
    assert found.pool(0) == "sometimes"  # no longer retired


def test_pools_draw_each_prompt_once_a_step_and_never_solved_ones_less():
    found = sampler("prompt_pools", number=10, sizes={"a": 100}, never_weight=0.1)
    found.visits = {f"a{i}": [0.0, 4.0, 0, 0] for i in range(50)} | {f"a{i}": [1.0, 4.0, 0, 0] for i in range(50, 100)}
    rows = [found.rows(step) for step in range(200)]
    assert all(len(set(step)) == 10 for step in rows)
    never = sum(row < 50 for step in rows for row in step)
    assert 0.05 * 2000 < never < 0.16 * 2000  # about one in eleven


def test_a_step_of_more_prompts_than_there_are_repeats_them_evenly():
    found = sampler("prompt_pools", number=5, sizes={"a": 2})
    assert sorted(found.rows(0).count(row) for row in (0, 1)) == [2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_in_the_middle_it_draws_the_same(kind):
    def follow(found, steps):
        rows = []
        for step in steps:
            answers(found, step, {"easy": 0.9, "hard": 0.4, "unsolvable": 0.0}, random.Random(step))
            rows.append(found.rows(step))
        return rows

    small = {"easy": 9, "hard": 9, "unsolvable": 9}
    make = {"number": 7, "sizes": small, **({"window": 4} if kind == "learning_progress" else {})}
    whole, first, second = (sampler(kind, **make) for _ in range(3))
    expected = follow(whole, range(30))
    follow(first, range(14))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert follow(second, range(14, 30)) == expected[14:]
    assert json.dumps(second.state_dict()) == json.dumps(whole.state_dict())


def test_fixed_without_a_mixture_has_no_sampler():
    assert sampler("fixed") is None
    assert [type(sampler(kind)) for kind in KINDS] == [WeakTasks, LearningProgress, PromptPools]
