"""Code rewards: assembly of programs, HumanEval from end to end, and sandboxes that fail."""

import gzip
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from reward_models import Unscored
from reward_models import code_execution as module
from reward_models.code_execution import code_execution
from reward_models.programs import assemble, find_code, program_head
from reward_models.task_check import task_check
from sandboxes import SandboxError

HUMANEVAL = Path(__file__).parents[2] / "../shared/data/humaneval/HumanEval.jsonl.gz"
HEAD = 'from typing import List\n\n\ndef helper(x):\n    return x\n\n\ndef double(x):\n    """Twice x."""\n'
TEST = "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(4) == 8\n"
GOOD = "def double(x):\n    return 2 * x\n"


def runs(source: str, expected: int = 8) -> bool:
    """Whether a program that this file wrote itself computes double(4)."""
    names: dict = {}
    exec(source, names)  # trusted: written above and below
    return names["double"](4) == expected


@pytest.mark.parametrize(
    "completion",
    [
        "    return 2 * x\n",
        "    return 2 * x\n\n\ndef unfinished(",
        "    y = helper(x)\n    return y + y\n\nprint(double(3))\n",
        "    return 2 * x\n\n# a comment\nif __name__ == '__main__':\n    1/0\n",
        GOOD,
        "from math import prod\n" + GOOD.replace("2 * x", "prod([2, x])"),
        HEAD + "    return 2 * x\n",
        "```python\n" + GOOD + "```",
        "Sure! Here it is:\n```python\n" + GOOD + "```\nIt doubles.",
        "```python\n    return 2 * x\n```",
        "```\n" + GOOD + "```",
        "~~~python\n" + GOOD + "~~~",
        "```py\n" + GOOD,
        "```python\n1/0\n```\nBetter:\n```python\n" + GOOD + "```",
        "```python\n" + GOOD + "```\nUsage:\n```python\nprint(double(2))\n```\nOutput:\n```\n4\n```",
        "```python\n" + GOOD + "```\n```text\n8\n```",
        "<think>\n```python\ndef double(x):\n    return 3\n```\n</think>\n```python\n" + GOOD + "```",
        "Here is the function.\n\n" + GOOD + "\nThis doubles x.",
        "def double(x: int) -> int:\n    return 2 * x\n",
        "double = lambda x: 2 * x\n",
        "def double(x):\n    return helper(x) + x\n",
        "def twice(x):\n    return 2 * x\n\n\ndef double(x):\n    return twice(x)\n",
        "import math\n\nFACTOR = 2\n\n\ndef double(x):\n    return FACTOR * x\n",
    ],
)
def test_ways_to_write_the_same_program(completion):
    assert runs(assemble(HEAD, completion, "double"))


def test_a_chat_prompt_without_code_is_not_part_of_the_program():
    assert assemble("Write a function double(x).", "```python\n" + GOOD + "```", "double") == GOOD


def test_head_is_the_code_prompt_or_the_code_that_a_chat_prompt_shows():
    assert program_head(HEAD, "whatever", "double") == HEAD
    assert program_head(None, f"Complete this:\n```python\n{HEAD}```", "double") == HEAD
    assert program_head(None, HEAD, "double") == HEAD


def test_an_unfinished_fence_lasts_until_the_end():
    assert find_code("```python\n" + GOOD, "double") == (GOOD, True)


def test_hostile_text_is_assembled_in_linear_time():
    started = time.process_time()
    for text in ("```" * 300_000, "(" * 10**6, "```python\n" * 100_000, "\n" * 10**6, "def " * 250_000):
        assemble(HEAD, text, "double")
    assert time.process_time() - started < 5.0


@pytest.fixture(scope="module")
def real_sandbox():
    try:
        return module.sandbox()
    except SandboxError as error:
        pytest.skip(f"no sandbox on this machine: {error}")


@pytest.fixture(scope="module")
def problems():
    if not HUMANEVAL.exists():
        pytest.skip("HumanEval is not beside the repository")
    return [json.loads(line) for line in gzip.open(HUMANEVAL)]


def humaneval_scores(problems: list[dict], completions: list[str], **options) -> list[float | None]:
    return code_execution(
        prompts=[p["prompt"] for p in problems],
        completions=completions,
        test=[p["test"] for p in problems],
        entry_point=[p["entry_point"] for p in problems],
        **options,
    )


@pytest.mark.usefixtures("real_sandbox")
def test_all_canonical_solutions_of_humaneval_pass_in_every_dress(problems):
    bodies = [p["canonical_solution"] for p in problems]
    heads = [p["prompt"] for p in problems]
    chats = [f"<think>hm</think>Here:\n```python\n{h}{b}\n```\nDone." for h, b in zip(heads, bodies, strict=True)]
    lone = [h[h.index(f"def {p['entry_point']}") :] + b for p, h, b in zip(problems, heads, bodies, strict=True)]
    whole = [f"{h}{b.rstrip()}" for h, b in zip(heads, bodies, strict=True)]
    listed = ["1. So:\n\n" + re.sub("(?m)^", "   ", f"```python\n{w}\n```") + "\n" for w in whole]
    glued = [f"```python\n{w}```\nOutput:\n```\n5\n```" for w in whole]
    behind = [f"```python\n{w}\n``` Done." for w in whole]
    future = [f"```python\nfrom __future__ import annotations\n{w}\n```" for w in whole]
    usage = "    ```\n    usage\n    ```\n"
    documented = [
        f"```python\n{h.rstrip()[:-3].rstrip()}\n{usage}    {h.rstrip()[-3:]}\n{b}```"
        for h, b in zip(heads, bodies, strict=True)
    ]
    cuts = [w.index(f"def {p['entry_point']}") for p, w in zip(problems, whole, strict=True)]
    split = [f"```python\n{w[:cut]}\n```\n\n```python\n{w[cut:]}\n```" for w, cut in zip(whole, cuts, strict=True)]
    for completions in (bodies, chats, lone, listed, glued, behind, future, documented, split):
        assert humaneval_scores(problems, completions) == [1.0] * 164


@pytest.mark.usefixtures("real_sandbox")
def test_a_solution_of_humaneval_inside_reasoning_that_never_ends_scores_zero(problems):
    drafts = [f"```python\n{p['prompt']}{p['canonical_solution']}\n```" for p in problems]
    assert humaneval_scores(problems, ["<think>\n" + draft for draft in drafts]) == [0.0] * 164
    templated = [p["prompt"] + "<think>\n" for p in problems]
    assert humaneval_scores(problems, drafts, rendered_prompt=templated) == [0.0] * 164


@pytest.mark.usefixtures("real_sandbox")
def test_a_prompt_of_one_word_is_not_run_with_the_tests():
    columns = {"completions": ["```python\n" + GOOD + "```"], "test": [TEST], "entry_point": ["double"]}
    assert code_execution(prompts=["double"], **columns) == [1.0]
    assert code_execution(prompts=["Solution"], **columns) == [1.0]


@pytest.mark.usefixtures("real_sandbox")
def test_every_humaneval_solution_with_a_broken_return_fails(problems):
    broken = [re.sub(r"(?m)^(\s+)return\b", r"\1return 'broken',", p["canonical_solution"]) for p in problems]
    assert all(b != p["canonical_solution"] for b, p in zip(broken, problems, strict=True))
    assert humaneval_scores(problems, broken) == [0.0] * 164


@pytest.mark.usefixtures("real_sandbox")
def test_cheats_and_crashes_score_zero_and_fractions_count():
    cheats = ["    import sys; sys.exit(0)\n", "    raise SystemExit\n", "    return 2\n", "not python at all", ""]
    columns = {"prompts": [HEAD] * 5, "test": [TEST] * 5, "entry_point": ["double"] * 5}
    assert code_execution(completions=cheats, **columns) == [0.0] * 5
    assert code_execution(completions=cheats, fraction=True, **columns) == [0.0, 0.0, 0.5, 0.0, 0.0]


class FakeSandbox:
    """Passes whatever returns 2 * x, and breaks down on programs that say so."""

    def __init__(self):
        self.batches = []

    def run_batch(self, jobs):
        self.batches.append(jobs)
        return [self.judge(job) for job in jobs]

    def judge(self, job):
        if "outage" in job.source:
            return SandboxError("no more processes")
        outcome = "timeout_cpu" if "loop" in job.source else "passed" if "2 * x" in job.source else "wrong_answer"
        num_passed = 2 if outcome == "passed" else 0
        name = SimpleNamespace(value=outcome)
        return SimpleNamespace(outcome=name, passed=num_passed == 2, tests_passed=num_passed, tests_total=2)


@pytest.fixture
def fake(monkeypatch):
    sandbox = FakeSandbox()
    monkeypatch.setattr(module, "sandbox", lambda packages: sandbox)
    monkeypatch.setattr(module, "_memory", module._Memory(4))
    monkeypatch.setattr(module, "_totals", module.Counter())
    return sandbox


def scores_of(completions, **options):
    size = len(completions)
    return code_execution(
        prompts=["p"] * size, completions=completions, test=[TEST] * size, entry_point=["double"] * size,
        code_prompt=[HEAD] * size, **options,
    )  # fmt: skip


def test_a_sandbox_outage_is_unscored_and_counted_with_an_alarm(fake, caplog):
    logged = {}
    scores = scores_of(["    return 2 * x", "    outage", "    return 0"], log_metric=logged.__setitem__)
    assert scores == [1.0, Unscored("outage"), 0.0]
    assert logged["code_execution/outages"] == pytest.approx(1 / 3)
    assert "the sandbox failed on 1 of 3 programs" in caplog.text


def test_equal_programs_run_once_and_repeatable_verdicts_are_remembered(fake):
    completions = ["    return 2 * x", "    return 2 * x", "    loop", "    return 0"]
    assert scores_of(completions) == [1.0, 1.0, 0.0, 0.0]
    assert scores_of(completions) == [1.0, 1.0, 0.0, 0.0]
    assert [len(batch) for batch in fake.batches] == [3, 1]
    assert "loop" in fake.batches[1][0].source


def test_memory_is_bounded(fake):
    for number in range(10):
        scores_of([f"    return {number}"])
    assert len(module._memory._verdicts) == 4


def test_trusted_head_goes_to_the_tests_only_where_it_is_python(fake):
    columns = {"completions": ["x"] * 2, "test": [TEST] * 2, "entry_point": ["double"] * 2}
    code_execution(prompts=[HEAD, "Write double, please."], **columns)
    assert [job.prelude for job in fake.batches[0]] == [HEAD, ""]


def test_problems_without_a_test_are_unscored_and_start_no_sandbox(monkeypatch):
    monkeypatch.setattr(module, "sandbox", lambda: pytest.fail("no program, no sandbox"))
    assert code_execution(prompts=["p"], completions=["c"], test=[None], entry_point=[None]) == [None]


def test_task_check_routes_each_problem_by_its_columns(fake):
    scores = task_check(
        prompts=["p"] * 4,
        completions=["    return 2 * x", "#### 18", "free text", "#### 19"],
        answer=[None, "18", None, "18"],
        test=[TEST, None, None, None],
        entry_point=["double", None, None, None],
        code_prompt=[HEAD, None, None, None],
    )
    assert scores == [1.0, 1.0, None, 0.0]
    assert task_check(prompts=["p"], completions=["18"], answer=["18"]) == [1.0]
