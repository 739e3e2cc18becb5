"""Rows from every kind of source become problems, or are refused in a line that says where and what to do."""

import copy
import gzip
import json

import pytest
from datasets import Dataset, DatasetDict

from rl_distill.config import ConfigError, DataConfig
from rl_distill.data.loading import load_splits
from rl_distill.data.problems import load_problems

ROWS = [{"prompt": f"{i}+1?", "answer": str(i + 1)} for i in range(4)]
CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if tools %}"
    "<tools>{{ tools | tojson }}{% endif %}<assistant>"
    "{% if enable_thinking is defined and not enable_thinking %}<no_think>{% endif %}"
)


@pytest.fixture
def chatty(tokenizer):
    found = copy.deepcopy(tokenizer)
    found.chat_template = CHAT
    return found


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def prompts(source, tokenizer, split="train", **settings):
    return [p.prompt for p in load_problems(DataConfig(**settings), source, split, tokenizer)]


def test_every_kind_of_source_gives_the_same_rows(tmp_path, tokenizer):
    expected = [row["prompt"] for row in ROWS]
    (tmp_path / "a.jsonl").write_text(lines(ROWS))
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines(ROWS).encode()))
    data = Dataset.from_list(ROWS)
    data.to_parquet(tmp_path / "a.parquet")
    data.to_csv(tmp_path / "a.csv")
    data.save_to_disk(tmp_path / "saved")
    DatasetDict(train=data, dev=data.select([0])).save_to_disk(tmp_path / "splits")
    names = ("a.jsonl", "a.json", "b.jsonl.gz", "a.parquet", "a.csv", "saved", "splits")
    assert {name: prompts(str(tmp_path / name), tokenizer) for name in names} == dict.fromkeys(names, expected)
    assert prompts(f"{tmp_path}/splits:dev", tokenizer) == expected[:1]


def test_several_files_patterns_and_folders_are_read_in_order(tmp_path, tokenizer):
    for name in ("part-1", "part-2", "test"):
        (tmp_path / f"{name}.jsonl").write_text(lines([{"prompt": name}]))
    assert prompts(f"{tmp_path}/part-*.jsonl", tokenizer) == ["part-1", "part-2"]
    assert prompts([f"{tmp_path}/part-2.jsonl", f"{tmp_path}/test.jsonl"], tokenizer) == ["part-2", "test"]
    assert prompts(str(tmp_path), tokenizer, "test") == ["test"]
    with pytest.raises(ConfigError, match=r"data.train: no file matches '.*/nothing\*.jsonl'"):
        prompts(f"{tmp_path}/nothing*.jsonl", tokenizer)


def test_a_saved_dataset_without_the_split_says_which_it_has(tmp_path, tokenizer):
    DatasetDict(dev=Dataset.from_list(ROWS)).save_to_disk(tmp_path / "d")
    with pytest.raises(ConfigError, match=r"has no split 'train'; it has dev: write .*/d:dev"):
        prompts(str(tmp_path / "d"), tokenizer)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_is_refused(tmp_path, tokenizer, split, text):
    (tmp_path / "e.jsonl").write_text(text)
    with pytest.raises(ConfigError, match=rf"data.{split}: .*e.jsonl holds no rows"):
        prompts(str(tmp_path / "e.jsonl"), tokenizer, split)


def test_a_torn_line_is_named(tmp_path, tokenizer):
    (tmp_path / "t.jsonl").write_text(lines(ROWS) + '{"prompt": "5+')
    with pytest.raises(ConfigError, match=r"t.jsonl line 5 is no JSON .*mend or remove the line"):
        prompts(str(tmp_path / "t.jsonl"), tokenizer)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("", "the prompt is empty"),
        ("  \n", "the prompt is empty"),
        (None, r"the prompt \(prompt\) is missing"),
        (7, "the prompt is int"),
        ([], "the prompt is an empty list"),
        ([{"role": "user", "content": None}], r"message 0 \(user\) has no content"),
        ([{"content": "hi"}], "message 0 is .* not {role: ..., content: ...}"),
        (["hi"], "message 0 is 'hi'"),
        ([{"role": "assistant", "content": "4"}], "the messages hold nothing but assistant turns"),
    ],
)
def test_a_row_without_a_prompt_is_named_with_its_line(tmp_path, chatty, prompt, reason):
    (tmp_path / "d.jsonl").write_text(lines([*ROWS, {"prompt": prompt}]))
    with pytest.raises(ConfigError, match=rf"1 of 5 rows have no usable prompt.*d.jsonl line 5: {reason}"):
        prompts(str(tmp_path / "d.jsonl"), chatty)


def test_overlong_prompts_are_counted_cut_or_refused(tmp_path, tokenizer, capsys):
    rows = [{"prompt": "1+1?"}, {"prompt": "please add " + "1+" * 30 + "2?"}]
    source = tmp_path / "long.jsonl"
    source.write_text(lines(rows))
    short = {"max_prompt_length": 8}
    assert prompts(str(source), tokenizer, "test", **short) == ["1+1?"]
    assert "data.test: 1 of 2 prompts are longer than data.max_prompt_length (8)" in capsys.readouterr().out
    with pytest.raises(
        ConfigError, match=r"1 of 2 prompts are longer .*: raise it, or set data.overlong_prompts to drop"
    ):
        prompts(str(source), tokenizer, **short, overlong_prompts="refuse")
    kept, cut = prompts(str(source), tokenizer, **short, overlong_prompts="cut")
    assert kept == "1+1?"
    assert rows[1]["prompt"].endswith(cut)
    assert 0 < len(tokenizer(cut)["input_ids"]) <= 8
    assert len(cut) > 4


def test_a_test_set_that_is_wholly_too_long_is_refused(tmp_path, tokenizer):
    (tmp_path / "d.jsonl").write_text(lines(ROWS))
    with pytest.raises(ConfigError, match=r"data.test: 4 of 4 prompts are longer than data.max_prompt_length \(1\)"):
        prompts(str(tmp_path / "d.jsonl"), tokenizer, "test", max_prompt_length=1)


def test_messages_that_end_with_the_answer_lose_it(tmp_path, chatty):
    turns = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]
    (tmp_path / "m.jsonl").write_text(lines([{"messages": turns}]))
    (problem,) = load_problems(DataConfig(), str(tmp_path / "m.jsonl"), "train", chatty)
    assert (problem.prompt, problem.solution) == ("<user>1+1?<assistant>", "2")


def test_tools_and_template_settings_reach_the_template(tmp_path, chatty):
    tools = [{"type": "function", "function": {"name": "add"}}]
    rows = [
        {"prompt": [{"role": "user", "content": "hi"}], "tools": tools},
        {"prompt": [{"role": "user", "content": "hi"}], "chat_template_kwargs": {"enable_thinking": True}},
    ]
    (tmp_path / "t.jsonl").write_text(lines(rows))
    with_tools, thinking = prompts(str(tmp_path / "t.jsonl"), chatty, chat_template_kwargs={"enable_thinking": False})
    assert '<tools>[{"type": "function", "function": {"name": "add"}}]<assistant><no_think>' in with_tools
    assert thinking == "<user>hi<assistant>"


def test_chat_without_a_template_says_what_to_do(tmp_path, tokenizer):
    (tmp_path / "d.jsonl").write_text(lines(ROWS))
    with pytest.raises(ConfigError, match=r"data.chat: the tokenizer has no chat template: take an instruct model"):
        prompts(str(tmp_path / "d.jsonl"), tokenizer, chat=True)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (r"{prompt} in \boxed{}", r"{} names no column .* as in \\boxed{{}}"),
        (r"{prompt} in \boxed{0}", r"\{0\} names no column"),
        ("{prompt} {", "data.prompt_template: .*; write literal braces twice"),
        ("{question}", "no column 'question'; columns are prompt, answer"),
    ],
)
def test_a_template_that_cannot_be_filled_is_told_before_any_row(tmp_path, tokenizer, template, message):
    (tmp_path / "d.jsonl").write_text(lines(ROWS))
    with pytest.raises(ConfigError, match=message):
        prompts(str(tmp_path / "d.jsonl"), tokenizer, prompt_template=template)


def test_a_template_never_says_none(tmp_path, tokenizer):
    (tmp_path / "d.jsonl").write_text(lines([*ROWS, {"prompt": "x", "answer": None}]))
    with pytest.raises(ConfigError, match="line 5: the column answer of the template is missing"):
        prompts(str(tmp_path / "d.jsonl"), tokenizer, prompt_template="{prompt} {answer}")


def test_splits_of_one_row_leave_nothing_to_train_on(tmp_path, tokenizer):
    (tmp_path / "d.jsonl").write_text(lines(ROWS[:1]))
    with pytest.raises(ConfigError, match="no prompt left to train on"):
        load_splits(DataConfig(train=str(tmp_path / "d.jsonl")), tokenizer, 0)
