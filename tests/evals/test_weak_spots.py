"""Long prompts and languages: the answer is in the text once, files of MGSM's shape are read, and parts are told."""

import re

import pytest

from rl_distill.evals.records import parts, summarize
from rl_distill.tasks.base import TaskError, TaskOptions, load_task, validate
from rl_distill.tasks.weak_spots.long_context import HOPS, NUM_PROBLEMS

FACT = re.compile(r"The secret number of (\w+) is (?:the same as that of (\w+)|(\d+))\.")


def solved(prompt):
    """The answer by following the facts, as a reader would."""
    facts = {who: other or number for who, other, number in FACT.findall(prompt)}
    (who,) = re.findall(r"What is the secret number of (\w+)\?", prompt)
    steps = 0
    while not who.isdigit():
        who, steps = facts[who], steps + 1
    return who, steps


@pytest.mark.parametrize(("name", "tokens"), [("needle_1k", 1000), ("needle_4k", 4000), ("needle_8k", 8000)])
def test_the_answer_follows_from_the_text(name, tokens):
    task = load_task(name, TaskOptions())
    problems = task.problems()
    assert len({p.prompt for p in problems}) == NUM_PROBLEMS == validate(task, problems)
    for problem in problems:
        assert solved(problem.prompt) == (problem.columns["answer"], HOPS[problem.columns["kind"]])
        assert 4 * tokens <= len(problem.prompt) < 4 * tokens + 800
    assert [p.prompt for p in task.problems()] == [p.prompt for p in problems]
    wrong = task.graded(problems[:2], ["7", ""])
    assert [found.scores["accuracy"] for found in wrong] == [0.0, 0.0]


def test_files_of_mgsm_are_read_with_their_language(tmp_path):
    (tmp_path / "mgsm_de.tsv").write_text("Anna hat 3 Äpfel und kauft 4. Wie viele hat sie?\t7\nWie viel ist 2+2?\t4\n")
    (tmp_path / "zh.jsonl").write_text(
        '{"question": "小明有1,000元，花了一半，还剩多少？", "answer_number": "1,500"}\n'
    )
    task = load_task("mgsm", TaskOptions(str(tmp_path)))
    problems = task.problems()
    assert [(p.columns["language"], p.solution) for p in problems] == [("de", "7"), ("de", "4"), ("zh", "1500")]
    assert validate(task, problems) == 3
    graded = task.graded(problems, ["Sie hat 7 Äpfel.", "5", "答案是 1500"])
    assert [found.scores["accuracy"] for found in graded] == [1.0, 0.0, 1.0]
    (tmp_path / "mgsm_fr.tsv").write_text("pas de réponse\n")
    with pytest.raises(TaskError, match=r"mgsm_fr.tsv line 1: no tab"):
        task.problems()
    with pytest.raises(TaskError, match="--data_path mgsm"):
        load_task("mgsm", TaskOptions()).problems()


def record(index, score, **columns):
    about = {"index": index, "sample": 0, "finish": "stop", "tokens": 1}
    return about | {"scores": {"accuracy": score}} | columns


def test_accuracy_is_told_by_prompt_length_and_by_language():
    lengths, scores = [10, 1000, 1001, 5000, 9000], [1.0, 0.0, 1.0, 1.0, 0.0]
    records = [record(i, s, prompt_tokens=n) for i, (n, s) in enumerate(zip(lengths, scores, strict=True))]
    found = summarize(load_task("needle_1k", TaskOptions()), records, [])["metrics"]
    told = {name: (one["value"], one["n"]) for name, one in found.items() if "(" in name}
    assert told == {
        "accuracy (prompts up to 1,000 tokens)": (0.5, 2),
        "accuracy (prompts beyond 1,000 tokens)": (pytest.approx(2 / 3), 3),
        "accuracy (prompts beyond 4,000 tokens)": (0.5, 2),
        "accuracy (prompts beyond 8,000 tokens)": (0.0, 1),
    }
    spoken = [record(0, 1.0, language="de"), record(1, 0.0, language="de"), record(2, 1.0, language="zh")]
    assert {name: len(part) for name, part in parts(spoken).items()} == {"language de": 2, "language zh": 1}
    assert not parts([record(0, 1.0, prompt_tokens=7, language="de")])
    assert not parts([record(0, 1.0)])  # of an earlier version
