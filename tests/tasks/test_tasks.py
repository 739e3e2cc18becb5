"""Tasks: data in the datasets' own formats, prompts, graders against gold, wrong, empty and cheating answers."""

import gzip
import json
from pathlib import Path

import pytest

from reward_models import RewardBlend, RewardSpec
from rl_distill.data.reward_inputs import reward_inputs
from rl_distill.tasks.base import Graded, Task, TaskError, TaskOptions, load_task, validate
from rl_distill.tasks.data import read_rows
from rl_distill.tasks.triviaqa import exact_match, f1, normalize, triviaqa_match
from rl_distill.types import Completion, Finish, Problem

OFFICIAL = Path(__file__).parents[3] / "shared" / "data"
needs_official = pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the official data is not beside the repository")

QUESTIONS = [
    {"question": "Tom has 3 pens and buys 2. How many?", "answer": "3+2=<<3+2=5>>5\n#### 5"},
    {"question": "A farm sells 1,200 eggs at $2. How much?", "answer": "1200*2=<<1200*2=2400>>2400\n#### 2,400"},
]
FUNCTION = {
    "task_id": "HumanEval/0",
    "prompt": 'from math import floor\n\n\ndef half(x):\n    """Half of x, rounded down."""\n',
    "canonical_solution": "    return floor(x / 2)\n",
    "entry_point": "half",
    "test": "def check(candidate):\n    assert candidate(4) == 2\n    assert candidate(5) == 2\n",
}


def write_jsonl(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def gsm8k_folder(tmp_path):
    write_jsonl(tmp_path / "test.jsonl", QUESTIONS)
    write_jsonl(tmp_path / "train.jsonl", [{"question": f"Q{i}?", "answer": f"so {i}\n#### {i}"} for i in range(9)])
    return str(tmp_path)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".parquet"])
def test_rows_read_the_same_from_every_format(tmp_path, suffix):
    path = tmp_path / f"test{suffix}"
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(QUESTIONS), path)
    elif suffix == ".json":
        path.write_text(json.dumps(QUESTIONS))
    else:
        data = "".join(json.dumps(row) + "\n" for row in QUESTIONS).encode()
        path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    assert read_rows(path) == QUESTIONS


def test_a_line_of_jsonl_may_hold_characters_that_other_programs_take_for_line_ends(tmp_path):
    rows = [{"question": "one\u2028two\x85three"}, {"question": "four"}]
    path = tmp_path / "test.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    assert read_rows(path) == rows


def test_a_damaged_file_is_told_by_name(tmp_path):
    path = tmp_path / "test.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"question": 1}\n' * 50)[:-9])
    with pytest.raises(TaskError, match=r"test\.jsonl\.gz cannot be read"):
        read_rows(path)


def test_absent_data_is_one_line_with_both_ways_to_get_it(tmp_path):
    with pytest.raises(TaskError) as error:
        load_task("gsm8k", TaskOptions(str(tmp_path / "nowhere"), "chat", has_chat_template=True)).problems()
    message = str(error.value)
    assert "\n" not in message
    assert "hf download --repo-type dataset openai/gsm8k" in message
    assert "--data_path gsm8k=" in message


def test_data_that_the_hub_does_not_give_is_one_line_as_well():
    """The tests run with the hub switched off."""
    with pytest.raises(TaskError, match=r"openai/gsm8k cannot be loaded here \(ConnectionError.*--data_path gsm8k="):
        load_task("gsm8k", TaskOptions(None, "chat", has_chat_template=True)).problems()


def test_rows_without_a_column_that_the_task_reads_are_told(tmp_path):
    (tmp_path / "he.jsonl").write_text(json.dumps({"task_id": "a", "prompt": "def f():\n", "entry_point": "f"}) + "\n")
    with pytest.raises(TaskError, match="task humaneval: a row of its data has no column 'test'; rename or add it"):
        load_task("humaneval", TaskOptions(str(tmp_path / "he.jsonl"), "base")).problems()


def test_rows_of_another_kind_are_told(tmp_path):
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": "1 + 1", "answer": 2}) + "\n")
    (tmp_path / "train.jsonl").write_text(json.dumps({"question": "1 + 1", "answer": "#### 2"}) + "\n")
    with pytest.raises(TaskError, match=r"task gsm8k: its problems cannot be made \(AttributeError: 'int' .*other"):
        load_task("gsm8k", TaskOptions(str(tmp_path), "5-shot")).problems()


@pytest.mark.parametrize("body", ["raise RuntimeError('boom')", "sys.exit(3)", "return [][0]"])
def test_what_a_task_of_ones_own_raises_is_told_with_its_name(tmp_path, body):
    (tmp_path / "mine.py").write_text(f"import sys\n\n\ndef make():\n    {body}\n")
    with pytest.raises(TaskError, match=r"task .*mine.py:make: its problems cannot be made \(\w+: .*\): mend the task"):
        load_task(f"{tmp_path}/mine.py:make", TaskOptions())


def test_gsm8k_prompts_of_the_protocols(gsm8k_folder):
    five = load_task("gsm8k", TaskOptions(gsm8k_folder, "5-shot"))
    prompt = five.problems()[0].prompt
    assert prompt.startswith("Question: Q0?\nAnswer: so 0\n#### 0\n\nQuestion: Q1?\n")
    assert prompt.endswith("Question: Tom has 3 pens and buys 2. How many?\nAnswer:")
    assert prompt.count("Question:") == 6
    assert "<<" not in prompt
    eight = load_task("gsm8k", TaskOptions(gsm8k_folder, "8-shot")).problems()[0].prompt
    assert eight.startswith("Q: Q0?\nA: so 0 The answer is 0.\n\n")
    assert eight.count("Q: ") == 9
    chat = load_task("gsm8k", TaskOptions(gsm8k_folder, None, has_chat_template=True))
    assert chat.protocol == "chat"
    assert chat.problems()[0].prompt.endswith("put your final answer within \\boxed{}.")


def test_few_shot_without_a_train_split_says_what_to_give(tmp_path):
    path = write_jsonl(tmp_path / "test.jsonl", QUESTIONS)
    with pytest.raises(TaskError, match=r"give a folder with train\.jsonl"):
        load_task("gsm8k", TaskOptions(str(path.parent), "5-shot")).problems()


def test_a_math_answer_cut_by_length_is_graded_as_in_training(gsm8k_folder):
    task = load_task("gsm8k", TaskOptions(gsm8k_folder, "5-shot"))
    problems, texts = task.problems()[:1] * 2, ["3+2=5\n#### 5"] * 2
    by_hand = {"flexible": [1.0, 0.0], "strict": [1.0, 0.0]}
    graded = task.graded(problems, texts, [True, False])
    assert {name: [each.scores[name] for each in graded] for name in by_hand} == by_hand
    with RewardBlend([RewardSpec("task_check", 1.0)]) as blend:
        ends = [Completion(text, [1], end) for text, end in zip(texts, (Finish.STOP, Finish.LENGTH), strict=True)]
        assert blend.score(**reward_inputs(problems, ends)).total == by_hand["flexible"]
    mine = Task("mine", list, lambda problems, texts: [Graded({"accuracy": 1.0})] * len(texts))
    assert len(mine.graded(problems, texts, [True, False])) == 2  # a grader of the user's own need not ask


@pytest.mark.parametrize(
    ("protocol", "text", "flexible", "strict"),
    [
        ("5-shot", "3+2=5\n#### 5", 1.0, 1.0),
        ("5-shot", "3+2=5\n#### $5.00", 1.0, 1.0),
        ("5-shot", "so there are 5", 1.0, 0.0),
        ("5-shot", "3+2=6\n#### 6", 0.0, 0.0),
        ("5-shot", "", 0.0, 0.0),
        ("5-shot", "The answer is \\boxed{5}", 1.0, 0.0),
        ("8-shot", "3+2=5. The answer is 5.", 1.0, 1.0),
        ("8-shot", "3+2=5", 1.0, 0.0),
        ("chat", "We get \\boxed{5}.", 1.0, 1.0),
        ("chat", "<think>\\boxed{9}</think>It is 5.", 1.0, 0.0),
        ("chat", "\\boxed{1} \\boxed{2} \\boxed{3} \\boxed{4} \\boxed{6}", 0.0, 0.0),
    ],
)
def test_gsm8k_strict_and_flexible(gsm8k_folder, protocol, text, flexible, strict):
    task = load_task("gsm8k", TaskOptions(gsm8k_folder, protocol, has_chat_template=True))
    assert task.grade(task.problems()[:1], [text])[0].scores == {"flexible": flexible, "strict": strict}


def test_humaneval_grades_gold_wrong_empty_and_cheating(tmp_path):
    path = str(write_jsonl(tmp_path / "HumanEval.jsonl", [FUNCTION]))
    task = load_task("humaneval", TaskOptions(path, "base"))
    problem = task.problems()[0]
    assert problem.prompt.endswith('"""\n')
    assert validate(task, [problem]) == 1
    texts = [
        "    return x // 2\n",
        "    return x / 2\n",
        "",
        "    import os; os._exit(0)\n",
        "    return type('E', (), {'__eq__': lambda s, o: True})()",
    ]
    assert [v.scores["pass"] for v in task.grade([problem] * 5, texts)] == [1.0, 0.0, 0.0, 0.0, 0.0]


def test_humaneval_chat_takes_the_code_out_of_the_answer(tmp_path):
    path = str(write_jsonl(tmp_path / "HumanEval.jsonl", [FUNCTION]))
    task = load_task("humaneval", TaskOptions(path, None, has_chat_template=True))
    problem = task.problems()[0]
    assert task.stops == ()
    assert validate(task, [problem]) == 1
    code = "def half(x):\n    return floor(x / 2)\n"
    answer = f"<think>```python\ndef half(x): return 0\n```</think>Here:\n```python\n{code}```\nDone."
    graded = task.grade([problem, problem], [answer, "I cannot do that."])
    assert [verdict.scores["pass"] for verdict in graded] == [1.0, 0.0]
    assert graded[0].extracted == code


def test_humaneval_plus_wants_both_sets_of_tests(tmp_path):
    path = str(write_jsonl(tmp_path / "HumanEval.jsonl", [FUNCTION]))
    more = {
        "task_id": "HumanEval/0",
        "test": "def check(candidate):\n    for x in (-3, 0):\n        assert candidate(x) == x // 2\n",
    }
    plus = str(write_jsonl(tmp_path / "plus.jsonl", [more]))
    task = load_task("humaneval", TaskOptions(path, "base", extra_tests_path=plus))
    problems = task.problems()
    assert validate(task, problems) == 1
    graded = task.grade(problems, ["    return int(x / 2)\n"])[0]
    assert graded.scores == {"pass": 1.0, "plus": 0.0}


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Beatles!", "beatles"),
        ("a  man_of 'Steel'", "man of steel"),
        ("rock-and-roll", "rock and roll"),
        ("‘An’", ""),
    ],
)
def test_triviaqa_normalises_as_the_official_script(text, normal):
    assert normalize(text) == normal


def test_triviaqa_takes_the_best_alias():
    assert exact_match("the Beatles.", ["fab four", "Beatles"]) == 1.0
    assert exact_match("Beatles band", ["fab four", "beatles"]) == 0.0
    assert f1("Beatles band", ["fab four", "beatles"]) == pytest.approx(2 / 3)  # precision 1/2, recall 1
    assert f1("no no beatles", ["no beatles"]) == pytest.approx(0.8)  # one `no` counts: precision 2/3, recall 1


def test_triviaqa_reads_the_hubs_rows_and_the_official_files(tmp_path):
    hub = {"question": "Who?", "question_id": "q1", "answer": {"value": "Ann", "normalized_aliases": ["ann", "annie"]}}
    official = {
        "Question": "Who?",
        "QuestionId": "q1",
        "Answer": {"Value": "Ann", "NormalizedAliases": ["ann", "annie"]},
    }
    write_jsonl(tmp_path / "validation.jsonl", [hub])
    (tmp_path / "web.json").write_text(json.dumps({"Data": [official]}))
    first, second = (
        load_task("triviaqa", TaskOptions(str(tmp_path / name), "0-shot")) for name in ("validation.jsonl", "web.json")
    )
    assert first.problems() == second.problems()
    assert validate(first, first.problems()) == 1
    graded = first.grade(first.problems(), ["<think>Bob</think>\n Annie!\nQuestion: more"])
    assert graded == [Graded({"exact_match": 1.0, "f1": 1.0}, "Annie!")]
    assert triviaqa_match(completions=["Annie", "x", "Bob"], aliases=[["ann", "annie"], None, ["ann"]]) == [
        1.0,
        None,
        0.0,
    ]


OWN = """
from rl_distill.tasks.base import Graded, Task
from rl_distill.types import Problem

def make():
    problems = [Problem("own", "1", "Say yes: ", "yes")]
    return Task("own", lambda: problems, lambda ps, ts: [Graded({"accuracy": float(t.strip() == "yes")}) for t in ts])

def broken():
    return 3
"""


def test_a_users_task_is_one_file_named_by_path(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    task = load_task(f"{path}:make", TaskOptions())
    assert validate(task, task.problems()) == 1
    with pytest.raises(TaskError, match="must return a rl_distill"):
        load_task(f"{path}:broken", TaskOptions())
    with pytest.raises(TaskError, match="did you mean 'make'"):
        load_task(f"{path}:mkae", TaskOptions())


def test_a_wrong_name_or_protocol_names_the_nearest():
    with pytest.raises(TaskError, match="did you mean 'gsm8k'"):
        load_task("gms8k", TaskOptions())
    with pytest.raises(TaskError, match="did you mean '5-shot'"):
        load_task("gsm8k", TaskOptions(protocol="5shot"))
    with pytest.raises(TaskError, match="needs a tokenizer with a chat template"):
        load_task("gsm8k", TaskOptions(protocol="chat"))


def test_gold_answers_that_do_not_grade_stop_the_evaluation():
    problems = [Problem("t", "one", "p", "right"), Problem("t", "two", "p", "wrong")]
    task = Task("t", lambda: problems, lambda ps, ts: [Graded({"accuracy": float(t == "right")}) for t in ts])
    with pytest.raises(TaskError, match="1 of 2 gold answers do not grade as correct; first 'two'"):
        validate(task, problems)
    ungraded = Task("t", lambda: problems, lambda ps, ts: [Graded({"accuracy": None}) for _ in ts])
    with pytest.raises(TaskError, match="2 of 2 gold answers"):
        validate(ungraded, problems)


def test_free_text_and_classes_from_plain_rows(tmp_path):
    texts = write_jsonl(tmp_path / "texts.jsonl", [{"prompt": "Say it", "answer": ["the cat sat", "a cat sat"]}])
    task = load_task("free_text", TaskOptions(str(texts)))
    problems = task.problems()
    assert validate(task, problems) == 1
    graded = task.grade(problems, ["cat sat down"])[0]
    assert graded.scores["exact_match"] == 0.0
    assert graded.scores["f1"] == pytest.approx(2 / 3)
    rows = [{"prompt": "Good?", "label": "positive"}, {"prompt": "Bad?", "label": "negative"}]
    classes = load_task("classification", TaskOptions(str(write_jsonl(tmp_path / "classes.jsonl", rows))))
    problems = classes.problems()
    assert validate(classes, problems) == 2
    answers = ["It is Positive, not negative.", "positive"]
    graded = classes.grade(problems, answers)
    assert [verdict.scores["accuracy"] for verdict in graded] == [1.0, 0.0]
    records = [
        {"extracted": verdict.extracted, "choices": {"negative": negative, "positive": positive}}
        for verdict, (negative, positive) in zip(graded, [(-3.0, -1.0), (-1.0, -0.5)], strict=True)
    ]
    assert classes.corpus(problems, records) == {"macro_f1": pytest.approx(1 / 3), "auc": 1.0}


@needs_official
@pytest.mark.parametrize("protocol", ["chat", "5-shot", "8-shot"])
def test_all_1319_official_gold_answers_of_gsm8k_grade_as_correct(protocol):
    task = load_task("gsm8k", TaskOptions(str(OFFICIAL / "gsm8k"), protocol, has_chat_template=True))
    assert validate(task, task.problems()) == 1319


@needs_official
def test_all_164_official_gold_answers_of_humaneval_grade_as_correct():
    task = load_task("humaneval", TaskOptions(str(OFFICIAL / "humaneval"), "base"))
    assert validate(task, task.problems()) == 164
