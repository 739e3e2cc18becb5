"""Texts as token batches: what counts, what is read, what is refused."""

from __future__ import annotations

import json

import pytest
import torch

from rl_distill.config import ConfigError
from rl_distill.students.calibration import (
    Calibration,
    Row,
    batches,
    blocks,
    read_rows,
    read_texts,
    take,
    tokenize,
)


def test_only_the_completion_counts(tokenizer):
    prompt, completion = "Tom has 3 pens.", " So 3 + 4 = 7."
    found = tokenize(Row(completion, prompt), tokenizer, 512)
    num_prompt = len(tokenizer(prompt)["input_ids"])
    assert found.ids == tokenizer(prompt)["input_ids"] + tokenizer(completion)["input_ids"]
    assert found.scored == [False] * num_prompt + [True] * (len(found.ids) - num_prompt)
    assert found.num_bytes == len(completion)


def test_bytes_are_those_of_predicted_tokens(tokenizer):
    text = "7 é漢"  # the first token, 7, is predicted from nothing
    assert tokenize(Row(text), tokenizer, 512).num_bytes == len(" é漢".encode())
    cut = tokenize(Row("12345"), tokenizer, 3)
    assert (len(cut.ids), cut.num_bytes) == (3, 2)
    ids = tokenize(Row(ids=(5, 6, 7, 8), mask=(False, False, True, True)), tokenizer, 3)
    assert (ids.ids, ids.scored, ids.num_bytes) == ([5, 6, 7], [False, False, True], None)


def test_rows_are_taken_up_to_a_number_of_tokens(tokenizer):
    rows = [Row("1"), Row("12345"), Row("", "9"), Row("1234"), Row("12")]
    assert [len(found.ids) for found in take(rows, tokenizer, 512, 9)] == [5, 4]
    assert [len(found.ids) for found in take(rows, tokenizer, 3, 9)] == [3, 3, 2]
    assert [len(found.ids) for found in take(rows, tokenizer, 512, 1)] == [5]
    with pytest.raises(ConfigError, match="no row has a token to predict"):
        take([Row("1")], tokenizer, 512, 100)


def test_batches_hold_every_token_once_and_pad_on_the_right(tokenizer):
    rows = take([Row("1" * n) for n in (7, 2, 5, 3)], tokenizer, 512, 100)
    found = batches(rows, batch_tokens=10)
    assert [tuple(batch.ids_BT.shape) for batch in found] == [(2, 3), (1, 5), (1, 7)]
    assert sum(int(batch.scored_BT.sum()) for batch in found) == 7 + 2 + 5 + 3
    assert torch.equal(found[0].scored_BT, torch.tensor([[True, True, False], [True, True, True]]))


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_records_are_read(tmp_path):
    records = [
        {"text": "a"},
        {"prompt": "p", "completion": "c", "task_check": 1.0},
        {"input_ids": [1, 2], "mask": [0, 1]},
        {"input_ids": [3]},
    ]
    assert read_rows(write(tmp_path / "rows.jsonl", records)) == [
        Row("a"),
        Row("c", "p"),
        Row(ids=(1, 2), mask=(False, True)),
        Row(ids=(3,), mask=(True,)),
    ]


def test_a_log_of_rollouts_is_read_and_only_verified_ones_are_kept(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    scores = [1.0, 0.0, None, 0.5, 1.0]
    rows = [{"prompt": f"p{i}", "completion": f"c{i}", "task_check": score} for i, score in enumerate(scores)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet")
    assert len(read_rows(tmp_path / "log.parquet")) == 5
    assert read_rows(tmp_path / "log.parquet", "task_check") == [Row("c0", "p0"), Row("c4", "p4")]
    with pytest.raises(ConfigError, match="no column 'correct'; columns are prompt, completion, task_check"):
        read_rows(tmp_path / "log.parquet", "correct")
    wrong = write(tmp_path / "wrong.jsonl", [{"prompt": "p", "completion": "c", "ok": False}])
    with pytest.raises(ConfigError, match="no row whose 'ok' is at least 1"):
        read_rows(wrong, "ok")
    with pytest.raises(ConfigError, match="holds 'yes'; want numbers"):
        read_rows(write(tmp_path / "text.jsonl", [{"text": "a", "ok": "yes"}]), "ok")


def test_plain_text_is_cut_at_blank_lines(tmp_path):
    paragraphs = ["x" * 900, "y" * 900, "z" * 900, "w" * 5000]
    (tmp_path / "book.txt").write_text("\n\n".join(paragraphs))
    rows = read_rows(tmp_path / "book.txt")
    assert [row.text for row in rows] == ["x" * 900 + "\n\n" + "y" * 900, "z" * 900, "w" * 5000]
    assert blocks("\n\n\n\n") == []
    assert read_texts(tmp_path / "book.txt") == ["\n\n".join(paragraphs)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.jsonl", None, "does not exist"),
        ("absent.parquet", None, "does not exist"),
        ("rows.csv", "a,b\n", "want a .jsonl, .parquet or .txt file"),
        ("rows.jsonl", '{"text": "a"}\n{"text"\n', "line 2: not valid JSON"),
        ("rows.jsonl", '{"question": "a"}\n', "columns are question"),
        ("rows.jsonl", '{"input_ids": [1, 2], "mask": [1]}\n', "2 input_ids and a mask of 1"),
        ("rows.jsonl", "", "has no row"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_rows(tmp_path / name)


def test_texts_for_a_vocabulary_are_prompts_and_completions(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"prompt": "p", "completion": "c"}, {"text": "t"}])
    assert read_texts(path) == ["p", "c", "t"]
    with pytest.raises(ConfigError, match="token ids"):
        read_texts(write(tmp_path / "ids.jsonl", [{"input_ids": [1]}]))


def test_held_out_rows_are_never_measured_on():
    rows = [Row(str(i)) for i in range(23)]
    calibration = Calibration.of(rows)
    assert len(calibration.held_out) == 5
    assert sorted([*calibration.rows, *calibration.held_out], key=lambda row: int(row.text)) == rows
    assert Calibration.of(rows) == calibration
    given = Calibration.of(rows, [Row("x")])
    assert (len(given.rows), given.held_out) == (23, [Row("x")])
    with pytest.raises(ConfigError, match="at least two rows"):
        Calibration.of([Row("1")])
