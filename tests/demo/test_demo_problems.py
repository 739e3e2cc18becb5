"""The demo problems: gold answers grade as right, splits cannot share a problem, generation depends on the seed."""

import random

import pytest

from rl_distill.config import DemoConfig
from rl_distill.demo.models import make_splits
from rl_distill.demo.problems import SPLIT_SHARES, make_problems, split_of
from rl_distill.demo.short_functions import make_short_function
from rl_distill.demo.word_problems import make_word_problem
from rl_distill.evals.evaluation import grade
from rl_distill.types import Completion, Finish


def answered(text: str) -> Completion:
    return Completion(text, [0], Finish.STOP)


def test_a_word_problem_reads_like_gsm8k():
    problem = make_word_problem(random.Random(3))
    assert problem.prompt.startswith("Q: ")
    assert problem.solution.splitlines()[-1] == f"#### {problem.columns['answer']}"
    assert 2 <= len(problem.solution.splitlines()) - 1 <= 3


def test_every_equation_of_a_word_problem_holds_and_starts_where_the_last_one_ended():
    rng = random.Random(0)
    for _ in range(300):
        *equations, last = make_word_problem(rng).solution.splitlines()
        results = []
        for equation in equations:
            left, _, right = equation.partition("=")
            symbol = next(s for s in "+-*/" if s in left)
            a, b = map(int, left.split(symbol))
            assert {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[symbol] == int(right)
            assert not results or results[-1] == a
            results.append(int(right))
        assert last == f"#### {results[-1]}"
        assert all(0 <= value <= 99 for value in results)


def test_a_short_function_has_humanevals_columns():
    problem = make_short_function(random.Random(1))
    name = problem.columns["entry_point"]
    assert problem.prompt.startswith(f"def {name}(")
    assert problem.columns["test"].startswith("def check(candidate):\n")
    assert problem.columns["test"].count("assert candidate(") == 4


def test_gold_answers_are_right_and_wrong_empty_and_cheating_ones_are_not():
    problems = make_problems("train", 60, seed=5, math_share=0.5)
    assert grade(problems, [answered(problem.solution) for problem in problems]) == [1.0] * 60
    for text in (
        "",
        "#### 1000",
        "    return None",
        "    import sys; sys.exit(0)",
        "    return type('E', (), {'__eq__': lambda s, o: True})()",
    ):
        assert grade(problems, [answered(text)] * 60) == [0.0] * 60, text


def test_splits_share_no_problem_for_any_pair_of_seeds():
    keys = {}
    for split in SPLIT_SHARES:
        keys[split] = {p.key for seed in (0, 1) for p in make_problems(split, 200, seed)}
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["validation"]
    assert not keys["validation"] & keys["test"]
    assert all(split_of(key) == split for split in keys for key in keys[split])


def test_rl_prompts_are_disjoint_from_those_the_teacher_writes_for():
    splits = make_splits(DemoConfig(num_teacher_outputs=200, num_train_prompts=500, num_validation=20, num_test=20), 0)
    assert len(splits.cold_start) == 200
    assert len(splits.train) == 500
    assert not {p.key for p in splits.cold_start} & {p.key for p in splits.train}


def test_problems_follow_the_seed():
    assert make_problems("train", 50, 1) == make_problems("train", 50, 1)
    assert make_problems("train", 50, 1) != make_problems("train", 50, 2)


def test_asking_for_more_problems_than_a_split_holds_says_how_many_there_are(monkeypatch):
    monkeypatch.setattr(
        "rl_distill.demo.problems.MAKERS",
        {"math": lambda rng: make_word_problem(random.Random(1)), "code": make_short_function},
    )
    with pytest.raises(ValueError, match=r"only [01] distinct problems exist"):
        make_problems("train", 10, 0, math_share=1.0)
