"""The whole preparation on files: every planted fault is found, named and reported; nothing else goes."""

# ruff: noqa: SIM905 - a list of words, one a line, would fill pages

import json

import pytest

from rl_distill.cli import main
from rl_distill.config import DataConfig
from rl_distill.data.loading import load_splits
from rl_distill.files import read_jsonl

PEOPLE = "Anna Tom Emma Jack Grace Paul Lucy Henry Nina Oscar".split()
THINGS = "apples pears stamps marbles coins shells books pens cards balls".split()
FAULTS = {
    "no_json_object": '{"question": "torn',
    "no_prompt": '{"answer": "#### 5"}',
    "too_short": '{"question": "Hm?", "answer": "#### 5"}',
    "broken_text": '{"question": "What \\ufffd is five plus two?", "answer": "#### 7"}',
    "no_gold": '{"question": "How many legs has a common spider?"}',
    "gold_unreadable": '{"question": "How many legs has a common cat?", "answer": "it has 4 of them as far '
    'as most people who keep one would tell you"}',
    "contaminated": '{"question": "A held out question about seven boats and the nine sailors that live '
    'on each of them now", "answer": "#### 63"}',
}  # fmt: skip


def good(i):
    who, what = PEOPLE[i % 10], THINGS[i // 10 % 10]
    a, b = 5 + i, 21 + i * 3
    steps = f"{who} has {b} - {a} = <<{b}-{a}={b - a}>>{b - a} left.\n#### {b - a}"
    text = f"{who} had {b} {what} in a box and gave {a} of them to a friend. How many {what} stayed there?"
    return {"question": text, "answer": steps, "kind": "even" if i % 2 else "odd"}


@pytest.fixture
def source(tmp_path):
    lines = [json.dumps(good(i)) for i in range(90)]
    lines[10:10] = FAULTS.values()
    lines.append(json.dumps(good(3) | {"question": good(3)["question"].upper()}))
    lines.append(json.dumps(good(4) | {"question": "Please answer. " + good(4)["question"]}))
    lines += [json.dumps(good(200)), json.dumps(good(200) | {"answer": "#### 1"})]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "test.jsonl").write_text(FAULTS["contaminated"] + "\n")
    return tmp_path


def prepare(folder, out, *words):
    given = ["prepare-data", str(folder / "in.jsonl"), "--out", str(folder / out), *words]
    assert main([*given, "--test_set", str(folder / "test.jsonl")]) == 0
    return json.loads((folder / out / "report.json").read_text())


def test_every_planted_fault_is_found_named_and_kept_on_file(source):
    report = prepare(source, "out", "--split", "validation=0.1", "--stratify", "kind")
    expected = {**dict.fromkeys(FAULTS, 1), "duplicate": 1, "near_duplicate": 1, "conflicting_gold": 2}
    assert report["removed"] == expected
    removed = read_jsonl(source / "out" / "removed.jsonl")
    written = [row for name in ("train", "validation") for row in read_jsonl(source / "out" / f"{name}.jsonl")]
    assert len(written) + len(removed) == report["rows_read"] == 101
    assert sorted(row["question"] for row in written) == sorted(good(i)["question"] for i in range(90))
    assert "line 11" in next(row["place"] for row in removed if row["reason"] == "no_json_object")
    text = (source / "out" / "report.md").read_text()
    assert all(reason in text for reason in expected)
    counts = report["splits"]["validation"]
    assert abs(counts["kind = even"] - 4.5) < 1
    assert abs(counts["kind = odd"] - 4.5) < 1


def test_two_processes_write_what_one_writes(source):
    words = ("--split", "validation=0.1", "--augment", "renamed,numbers")
    prepare(source, "one", *words)
    prepare(source, "two", *words, "--processes", "2")
    for name in ("train.jsonl", "validation.jsonl", "removed.jsonl", "report.json"):
        assert (source / "one" / name).read_bytes() == (source / "two" / name).read_bytes()
    hashes = [json.loads((source / out / "manifest.json").read_text())["inputs"] for out in ("one", "two")]
    assert hashes[0] == hashes[1]


def test_augmented_rows_are_right_and_in_train_alone(source):
    prepare(source, "out", "--split", "validation=0.2", "--augment", "renamed,numbers")
    made = [row for row in read_jsonl(source / "out" / "train.jsonl") if "augmented" in row]
    assert {row["augmented"] for row in made} == {"renamed", "numbers"}
    for row in made:
        b, a = (int(word) for word in row["question"].split() if word.isdigit())
        assert int(row["answer"].rpartition("####")[2]) == b - a
    assert not any("augmented" in row for row in read_jsonl(source / "out" / "validation.jsonl"))
    held = {row["question"] for row in read_jsonl(source / "out" / "validation.jsonl")}
    assert not held & {row["question"] for row in made}


def test_the_output_is_what_data_train_reads(source):
    prepare(source, "out", "--split", "validation=0.1")
    files = {name: str(source / "out" / f"{name}.jsonl") for name in ("train", "validation")}
    splits = load_splits(DataConfig(**files, prompt_column="question"), None, 0)
    assert (len(splits.train), len(splits.validation)) == (81, 9)


def test_labels(source):
    rows = [good(i) | {"a": "x", "b": "x", "c": "x" if i % 3 else "y"} for i in range(30)]
    (source / "in.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    report = prepare(source, "out", "--labels", "a,b,c", "--min_agreement", "0.9")
    # 20 rows agree, 10 are 2 to 1: P = (20 + 10 / 3) / 30 = 7/9; shares 8/9 and 1/9: P_e = 65/81
    assert report["labels"]["fleiss_kappa"] == pytest.approx((7 / 9 - 65 / 81) / (1 - 65 / 81))
    assert report["removed"] == {"labels_disagree": 10}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "test=1.2"], "a share in (0, 1)"),
        (["--split", "a=0.5,b=0.5"], "leave nothing for train"),
        (["--near_duplicates", "0"], "--near_duplicates 0.0 is not in (0, 1]"),
        (["--augment", "magic"], "there are renamed, numbers"),
        (["--labels", "a"], "two columns"),
        (["--test_set", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--stratify", "subject"], "--stratify subject: no row has this column; the columns are: answer"),
        (["--prompt_column", "ask"], "--prompt_column ask: no row has this column"),
    ],
)
def test_a_mistake_is_one_line(source, words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["prepare-data", str(source / "in.jsonl"), "--out", str(source / "out"), *words])
    assert stopped.value.code == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert message in told[0]


def test_nothing_is_overwritten(source, capsys):
    prepare(source, "out")
    with pytest.raises(SystemExit):
        prepare(source, "out")
    assert "is not empty" in capsys.readouterr().err
