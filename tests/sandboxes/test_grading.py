"""What the judge reads off a trusted test, and how exceptions, preludes and counts come through."""

import ast

import pytest

from sandboxes import Job, JobError, Limits, Outcome, Sandbox, compiled_test


def certain(body: str, entry_point: str = "f") -> int:
    """How many calls are sent ahead for a check with this body."""
    lines = "".join(f"    {line}\n" for line in body.split("\n"))
    return len(compiled_test.certain_calls(ast.parse(f"def check(candidate):\n{lines}"), entry_point))


def test_plain_literal_asserts_are_sent_ahead():
    assert certain("assert candidate(1) == 2\nassert candidate([1, 'a'], k={2: (3,)}) == -1") == 2
    assert certain("assert abs(candidate(1.5) - 2) < 1e-6\nassert True") == 1


@pytest.mark.parametrize(
    "body",
    [
        "for i in range(3):\n    assert candidate(i)",
        "x = 3\nassert candidate(x) == 1",
        "assert candidate(1) == 1 or candidate(2) == 2",
        "assert candidate(candidate(1)) == 1",
        "assert candidate(*[1, 2]) == 1",
        "assert candidate(**{'a': 2}) == 1",
        "assert all(candidate(1) for _ in range(3))",
        "assert 0 < 1 < candidate(2)",
        "assert candidate(1) == f(1)",
        "try:\n    candidate(1)\nexcept ValueError:\n    pass",
        "assert list(map(candidate, [1, 2])) == [1, 2]",
    ],
)
def test_calls_that_are_not_certain_are_not_sent_ahead(body):
    assert certain(body) == 0


def test_a_test_may_expect_an_exception(sandbox):
    test = (
        "def check(candidate):\n    try:\n        candidate(-1)\n    except ValueError as e:\n"
        "        assert 'neg' in str(e)\n    else:\n        assert False\n    assert candidate(2) == 3\n"
    )
    source = "def f(x):\n    if x < 0:\n        raise ValueError('negative')\n    return x + 1\n"
    assert sandbox.run(Job(source, "f", test)).passed
    assert sandbox.run(Job("def f(x):\n    return x + 1\n", "f", test)).outcome is Outcome.WRONG_ANSWER


def test_a_prelude_lends_its_names_to_the_test_and_the_program_cannot_replace_them(sandbox):
    prelude = "def double(x):\n    return 2 * x\n"
    test = "def check(candidate):\n    assert double(candidate(3)) == 8\n"
    assert sandbox.run(Job("def f(x):\n    return x + 1\n", "f", test, prelude=prelude)).passed
    cheat = "def double(x):\n    return 8\ndef f(x):\n    return 0\n"
    assert sandbox.run(Job(cheat, "f", test, prelude=prelude)).outcome is Outcome.WRONG_ANSWER


def test_every_assert_and_every_call_is_counted_also_after_a_failure(sandbox):
    asserts = ("candidate(1) == 1", "candidate(2) == 2", "candidate(3) == 4")
    test = "def check(candidate):\n" + "".join(f"    assert {line}\n" for line in asserts)
    verdict = sandbox.run(Job("def f(x):\n    return x\n", "f", test))
    assert (verdict.outcome, verdict.tests_passed, verdict.tests_total) == (Outcome.WRONG_ANSWER, 2, 3)
    calls = [((1,), {}, 1), ((2,), {}, 2), ((3,), {}, 4), ((4,), {}, 4)]
    verdict = sandbox.run(Job("def f(x):\n    return x\n", "f", calls=calls))
    assert (verdict.outcome, verdict.tests_passed, verdict.tests_total) == (Outcome.WRONG_ANSWER, 3, 4)
    assert verdict.results == (True, True, False, True)


def test_a_call_that_hangs_keeps_the_calls_before_it(sandbox):
    source = "def f(x):\n    while x == 3:\n        pass\n    return x\n"
    limits = Limits(cpu_seconds=1, wall_seconds=20)
    verdict = sandbox.run(Job(source, "f", calls=[((n,), {}, n) for n in range(1, 6)], limits=limits))
    assert (verdict.outcome, verdict.tests_passed) == (Outcome.TIMEOUT_CPU, 2)


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ("def check(candidate)\n", "compile"),
        ("def chek(candidate):\n    pass\n", "define check"),
        ("def check(candidate):\n    assert helper(candidate(1)) == 2\n", "helper"),
        ("def check(candidate):\n    pass\n", "never called"),
        ("import no_such_module\ndef check(candidate):\n    assert candidate(1) == 2\n", "no_such_module"),
        ("def check(candidate):\n    assert candidate(1) == 2\n    import no_such_module\n", "no_such_module"),
        ("def check(candidate):\n    assert [][1] == candidate(1)\n", "before the candidate"),
        ("def check(candidate):\n    assert candidate(object()) == 2\n", "cannot be sent"),
    ],
)
def test_a_broken_test_is_an_error_and_never_a_verdict(sandbox, test, reason):
    with pytest.raises(JobError, match=reason):
        sandbox.run(Job("def f(x):\n    return x + 1\n", "f", test))


@pytest.mark.parametrize(
    ("test", "outcome"),
    [
        ("assert candidate(candidate(1)) == 3", Outcome.EXCEPTION),  # hands back what is not data
        ("for y in candidate(0):\n        z = y\n    assert z == 1", Outcome.WRONG_ANSWER),  # z stays undefined
        ("assert {1: 2}[candidate(2) ** 2]", Outcome.WRONG_ANSWER),  # its error has too many digits to be printed
        ("assert 'a' * candidate(3) == 'aaa'", Outcome.WRONG_ANSWER),  # ten gigabytes
        ("assert sum(range(candidate(4))) == 6", Outcome.TIMEOUT_WALL),  # hours in C code, which no alarm interrupts
        ("e = []\n    for n in (5, 6):\n        try:\n            candidate(n)\n        except NameError as error:\n"
         "            e.append(error)\n    raise e[0]", Outcome.WRONG_ANSWER),
    ],
)  # fmt: skip
def test_a_program_cannot_make_the_test_itself_fail_and_so_stay_unscored(test, outcome):
    source = (
        "import sys\nsys.set_int_max_str_digits(0)\ndef f(x):\n    if x > 4:\n        raise NameError('y')\n"
        "    return [[], object(), 10**4200, 10**10, 10**12][x]\n"
    )
    with Sandbox(num_slots=1, limits=Limits(wall_seconds=0.5)) as fresh:
        verdict = fresh.run(Job(source, "f", f"def check(candidate):\n    {test}\n"))
        assert verdict.outcome is outcome
        assert fresh.num_unscored == 0
        assert fresh.run(Job("def f(x):\n    return x\n", "f", calls=[((1,), {}, 1)])).passed


def test_a_name_error_of_the_program_is_the_programs():
    job = Job("def f(x):\n    return y\n", "f", calls=[((1,), {}, 1)])
    with Sandbox(num_slots=1) as fresh:
        assert fresh.run(job).outcome is Outcome.EXCEPTION


def test_a_test_that_swallows_everything_still_ends(sandbox):
    swallow = "        try:\n            candidate(1)\n        except:\n            pass\n"
    test = "def check(candidate):\n    for _ in range(3):\n" + swallow
    assert sandbox.run(Job("import os\ndef f(x):\n    os._exit(0)\n", "f", test)).outcome is Outcome.EXITED


@pytest.mark.parametrize("error", ["StopIteration", "StopAsyncIteration", "type('Stop', (StopIteration,), {})"])
@pytest.mark.parametrize(
    "body",
    [
        "assert all(map(lambda case: candidate(case) == case + 1, [1, 2]))",
        "assert list(map(candidate, [1, 2])) in ([2, 3], [])",
        "for answer in map(candidate, [1, 2]):\n        assert answer in (2, 3)",
        "assert not any(map(lambda case: candidate(case) != case + 1, [1, 2]))",
        "assert sum(candidate(case) != case + 1 for case in [1, 2]) == 0",
    ],
)
def test_a_program_cannot_end_the_tests_own_loop(sandbox, body, error):
    test = f"def check(candidate):\n    {body}\n"
    assert sandbox.run(Job("def f(x):\n    return x + 1\n", "f", test)).passed
    verdict = sandbox.run(Job(f"def f(x):\n    raise {error}\n", "f", test))
    assert verdict.outcome in (Outcome.EXCEPTION, Outcome.WRONG_ANSWER)


def test_what_a_program_says_about_its_failure_is_valid_unicode_in_the_verdict(sandbox):
    source = "def f(x):\n    raise ValueError('\\ud800 words')\n"
    verdict = sandbox.run(Job(source, "f", calls=[((1,), {}, 1)]))
    assert verdict.outcome is Outcome.EXCEPTION
    assert b"words" in verdict.detail.encode()
