"""The cache of teacher outputs: keys, reuse across runs, and what a crash leaves behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rl_distill.teachers.outputs import TeacherOutput, TeacherOutputCache, output_key

ROOT = Path(__file__).parents[2]
GREEDY = {"temperature": 0.0, "max_new_tokens": 64}


def row(prompt: str, *texts: str, teacher: str = "big@1", sampling: dict = GREEDY) -> TeacherOutput:
    return TeacherOutput(output_key(teacher, prompt, sampling), prompt, texts, (True,) * len(texts))


def test_key_changes_with_teacher_prompt_and_settings_but_not_with_their_order():
    key = output_key("big@1", "2+2?", {"temperature": 0.0, "n": 1})
    assert key == output_key("big@1", "2+2?", {"n": 1, "temperature": 0.0})
    others = [
        output_key("big@2", "2+2?", {"temperature": 0.0, "n": 1}),
        output_key("big@1", "2+3?", {"temperature": 0.0, "n": 1}),
        output_key("big@1", "2+2?", {"temperature": 0.7, "n": 1}),
        output_key("big@1", [{"role": "user", "content": "2+2?"}], {"temperature": 0.0, "n": 1}),
    ]
    assert len({key, *others}) == 5


def test_outputs_are_found_by_a_later_run_and_absent_keys_are_absent(tmp_path):
    first, second = row("2+2?", "4"), row("capital of France?", "Paris", "It is Paris\n")
    TeacherOutputCache(tmp_path).put([first])
    TeacherOutputCache(tmp_path).put([second])
    found = TeacherOutputCache(tmp_path).get([first.key, second.key, "missing"])
    assert found == {first.key: first, second.key: second}


def test_a_cache_that_is_open_sees_what_another_one_writes(tmp_path):
    reader, writer, item = TeacherOutputCache(tmp_path), TeacherOutputCache(tmp_path), row("2+2?", "4")
    assert reader.get([item.key]) == {}
    writer.put([item])
    assert reader.get([item.key]) == {item.key: item}
    assert len(reader) == 1


def test_the_newest_text_of_a_key_wins(tmp_path):
    cache = TeacherOutputCache(tmp_path)
    cache.put([row("2+2?", "5")])
    cache.put([row("2+2?", "4")])
    assert next(iter(cache.get([row("2+2?", "-").key]).values())).texts == ("4",)


def test_unicode_and_lone_quotes_survive(tmp_path):
    item = row('über "x" \u2212 \'', "½ ≤ π\n\ttab 😀")
    cache = TeacherOutputCache(tmp_path)
    cache.put([item])
    assert cache.get([item.key])[item.key] == item


def test_empty_outputs_are_refused():
    with pytest.raises(ValueError, match="at least one text"):
        TeacherOutput("key", "prompt", (), ())
    with pytest.raises(ValueError, match="at least one text"):
        TeacherOutput("key", "prompt", "text", (True,) * 4)


CRASH = """
import os, sys
import pyarrow.parquet as pq
from rl_distill.teachers.outputs import TeacherOutput, TeacherOutputCache
cache = TeacherOutputCache(sys.argv[1])
cache.put([TeacherOutput("kept", "p", ("t",), (True,))])
def write_half(table, file):
    file.write(b"PAR1 half a shard")
    file.flush()
    os._exit(9)
pq.write_table = write_half
cache.put([TeacherOutput("lost", "p", ("t",), (True,))])
"""


def test_a_crash_in_the_middle_of_a_write_loses_only_that_shard(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    crashed = subprocess.run([sys.executable, "-c", CRASH, str(tmp_path)], env=environment, timeout=60)
    assert crashed.returncode == 9
    assert len(list(tmp_path.glob(".writing-*"))) == 1
    cache = TeacherOutputCache(tmp_path)
    assert set(cache.get(["kept", "lost"])) == {"kept"}
    cache.put([TeacherOutput("lost", "p", ("again",), (False,))])
    assert cache.get(["lost"])["lost"].texts == ("again",)


def test_abandoned_temporary_files_are_removed_but_fresh_ones_are_left(tmp_path):
    old, fresh = tmp_path / ".writing-1.parquet", tmp_path / ".writing-2.parquet"
    old.write_bytes(b"half")
    fresh.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    TeacherOutputCache(tmp_path)
    assert not old.exists()
    assert fresh.exists()


def test_a_damaged_shard_is_told_and_ignored(tmp_path):
    cache, item = TeacherOutputCache(tmp_path), row("2+2?", "4")
    cache.put([item])
    (tmp_path / "00000000000000000001-damaged.parquet").write_bytes(b"PAR1 nothing useful PAR1")
    with pytest.warns(UserWarning, match="damaged"):
        assert TeacherOutputCache(tmp_path).get([item.key]) == {item.key: item}


def test_shards_are_plain_parquet_with_one_row_per_prompt(tmp_path):
    TeacherOutputCache(tmp_path).put([row("a", "1"), row("b", "2", "3")])
    (shard,) = tmp_path.glob("*.parquet")
    assert pq.read_table(shard)["texts"].to_pylist() == [["1"], ["2", "3"]]


def test_importing_the_cache_imports_no_torch():
    code = "import sys, rl_distill.teachers.outputs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode == 0
