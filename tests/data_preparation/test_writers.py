"""Texts that the user's functions write anew: only what keeps its numbers and is solved stays, in train alone."""

import json

import pytest

from rl_distill.cli import main
from rl_distill.files import read_jsonl

WRITERS = """
def paraphrase(prompts):
    return [p.replace("How many are left", "What remains").replace("17", "18") for p in prompts]

def translate(prompts):
    return [p[::-1] for p in prompts]

def translate_back(texts):
    return [t[::-1].replace("apples", "fruits") for t in texts]

def solve(prompts):
    import re
    found = [[int(n) for n in re.findall(r"[0-9]+", p)] for p in prompts]
    return [f"#### {a - b + (a == 19 and 'fruits' in p)}" for (a, b), p in zip(found, prompts)]
"""


def prepared(tmp_path, writers):
    (tmp_path / "writers.py").write_text(writers)
    rows = [
        {"question": f"{name} had {a} apples and ate 5 of them. How many are left?", "answer": f"#### {a - 5}"}
        for name, a in (("Tom", 17), ("Ann", 19), ("Eva", 42))
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    words = ["prepare-data", str(tmp_path / "in.jsonl"), "--out", str(out), "--writers", str(tmp_path / "writers.py")]
    assert main(words) == 0
    return read_jsonl(out / "train.jsonl")


def test_what_is_verified_stays(tmp_path):
    found = {
        (row["question"].split()[0], row["augmented"]) for row in prepared(tmp_path, WRITERS) if "augmented" in row
    }
    assert found == {
        ("Ann", "paraphrase"), ("Eva", "paraphrase"),  # the paraphrase of Tom's has another number
        ("Tom", "back_translation"), ("Eva", "back_translation"),  # what solve says of Ann's fruits is wrong
    }  # fmt: skip


@pytest.mark.parametrize(
    ("removed", "told"),
    [("def solve", "solve"), ("def translate_back", "belong together")],
)
def test_a_file_without_what_it_needs_is_one_line(tmp_path, capsys, removed, told):
    with pytest.raises(SystemExit) as stopped:
        prepared(tmp_path, WRITERS.replace(removed, "def other"))
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err
