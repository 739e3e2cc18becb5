"""The runner: stops, seeds, resumption, any number of processes, the command line, and a whole evaluation."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from reward_models import resolve
from rl_distill import distributed
from rl_distill.config import ConfigError
from rl_distill.evals import engine, provenance
from rl_distill.evals.command_line import parse
from rl_distill.evals.loading import check_lengths
from rl_distill.evals.records import RecordFiles, summarize
from rl_distill.generation.sampling import Sampling, added_text
from rl_distill.tasks.base import Graded, Task
from rl_distill.types import Problem

ROOT = Path(__file__).parents[2]
SAMPLING = Sampling(6, temperature=1.0)


def make_task(num_problems=7, **settings):
    problems = [
        Problem("toy", f"toy/{i}", "Q: " + "one more " * (i % 3) + f"{i}\nA:", "x") for i in range(num_problems)
    ]
    grade = lambda ps, ts: [Graded({"accuracy": float(len(t) % 2)}, t[:1]) for t in ts]  # noqa: E731
    return Task("toy", lambda: problems, grade, **settings)


@pytest.fixture
def student(make_policy, tokenizer):
    return engine.Student.of(make_policy(3), tokenizer)


def solve(task, student, folder, num_samples=2, **settings):
    files = RecordFiles(folder, task.name, {"made": "alike"})
    files.open(start_anew=False)
    return engine.solve(
        task, task.problems(), student, files, sampling=SAMPLING, num_samples=num_samples, batch_size=3, **settings
    )


def bare(records):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def test_a_stop_string_ends_a_completion():
    assert engine.cut("    return 1\n\ndef other", ("\nclass", "\ndef")) == ("    return 1\n", True)
    assert engine.cut("5\nQuestion: 6", ("Question:",)) == ("5\n", True)
    assert engine.cut("no stop", ("\ndef",)) == ("no stop", False)


def test_an_answers_first_space_is_kept_by_tokenizers_that_drop_it_at_the_start_of_a_text():
    vocabulary = {"def": 0, "▁▁▁": 1, "▁return": 2}
    llama_like = Tokenizer(models.WordLevel(vocabulary, unk_token="def"))
    llama_like.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=llama_like, clean_up_tokenization_spaces=False)
    assert tokenizer.decode([1, 2]) == "   return"
    assert added_text(tokenizer, [0], [1, 2]) == "    return"


def test_an_answer_to_a_prompt_that_ends_within_a_character(tokenizer):
    prompt, answer = tokenizer("é")["input_ids"][:1], tokenizer("é")["input_ids"][1:]
    assert added_text(tokenizer, prompt, answer) == tokenizer.decode(answer)


def test_generation_ends_at_a_stop_string_and_the_text_is_that_of_a_full_answer(tmp_path, student):
    full = solve(make_task(), student, tmp_path / "full")
    stop = next(record["completion"][1:3] for record in full if len(record["completion"]) > 4)
    stopped = solve(make_task(stops=(stop,)), student, tmp_path / "stopped")
    assert sum(record["tokens"] for record in stopped) < sum(record["tokens"] for record in full)
    for before, after in zip(full, stopped, strict=True):
        text, met = engine.cut(before["completion"], (stop,))
        assert after["completion"] == text
        assert after["tokens"] <= before["tokens"]
        assert after["finish"] == ("stop" if met else before["finish"])


def test_records_have_everything_and_come_in_order(tmp_path, student):
    records = solve(make_task(), student, tmp_path)
    assert [(r["index"], r["sample"]) for r in records] == [(i, s) for i in range(7) for s in range(2)]
    assert set(records[0]) == {
        "task", "key", "index", "sample", "prompt", "completion", "extracted", "scores", "finish", "tokens",
        "prompt_tokens", "seconds",
    }  # fmt: skip
    assert records[0]["prompt"] == "Q: 0\nA:"
    assert all(0 < r["tokens"] <= 6 and r["seconds"] > 0 for r in records)
    assert len({r["completion"] for r in records}) > 7  # samples of one problem differ


def test_an_interrupted_evaluation_goes_on_and_makes_no_batch_twice(tmp_path, student, monkeypatch):
    whole = solve(make_task(), student, tmp_path / "whole")
    calls = []
    real = engine.complete

    def failing(model, prompt_ids, *rest):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(prompt_ids))
        return real(model, prompt_ids, *rest)

    monkeypatch.setattr(engine, "complete", failing)
    with pytest.raises(KeyboardInterrupt):
        solve(make_task(), student, tmp_path / "cut")
    part = tmp_path / "cut" / "toy.part-0.jsonl"
    assert len(part.read_text().splitlines()) == 6
    part.write_text(part.read_text() + '{"task": "toy", "ke')  # the crash tore a line
    counted = []
    monkeypatch.setattr(engine, "complete", lambda m, ids, *rest: counted.append(len(ids)) or real(m, ids, *rest))
    assert bare(solve(make_task(), student, tmp_path / "cut")) == bare(whole)
    assert sum(counted) == 14 - 6


def test_records_made_under_other_settings_are_not_reused(tmp_path, student):
    solve(make_task(), student, tmp_path)
    files = RecordFiles(tmp_path, "toy", {"made": "otherwise"})
    files.open(start_anew=False)
    assert files.read() == {}


def test_a_changed_grader_answer_or_prompt_makes_old_records_unusable(tmp_path):
    source = "def grade(problems, texts): return []\n"
    graders = []
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(source)
        graders.append(resolve(f"{tmp_path / name}:grade"))
    settings = parse(["--model", "m", "--tasks", "demo", "--output_dir", str(tmp_path)])

    def prints(problem, grade, **more):
        return provenance.fingerprint(settings, "m", Task("toy", lambda: [problem], grade, **more), 5, [problem])

    base = prints(Problem("toy", "1", "Q", "A", {"x": 1}), graders[0])
    assert prints(Problem("toy", "1", "Q", "A", {"x": 1}), graders[1]) == base  # another file with the same text
    (tmp_path / "two.py").write_text(source + "# stricter\n")
    assert prints(Problem("toy", "1", "Q", "A", {"x": 1}), graders[1]) != base
    for problem in (Problem("toy", "1", "R", "A", {"x": 1}), Problem("toy", "1", "Q", "A", {"x": 2})):
        assert prints(problem, graders[0]) != base
    assert prints(Problem("toy", "1", "Q", "A", {"x": 1}), graders[0], stops=("\n",)) != base


class UnreadAtFirst(RecordFiles):
    """The files as a process sees them that starts together with the others: nothing is there yet."""

    started = False

    def read(self):
        if not self.started:
            self.started = True
            return {}
        return super().read()


def test_two_processes_make_the_records_of_one(tmp_path, student, monkeypatch):
    task = make_task()
    whole = solve(task, student, tmp_path / "one")
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "barrier", lambda: None)
    settings = {"sampling": SAMPLING, "num_samples": 2, "batch_size": 3}
    shares = {}
    for rank in (1, 0):  # here one after the other; the main process merges at the end
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        files = UnreadAtFirst(tmp_path / "two", task.name, {"made": "alike"})
        files.folder.mkdir(exist_ok=True)
        sizes: list[int] = []
        made = engine.solve(task, task.problems(), student, files, progress=sizes.append, **settings)
        shares[rank] = sum(sizes)
    assert shares == {0: 8, 1: 6}  # five batches of three, the last of two: the first, third and fifth are the main's
    assert bare(made) == bare(whole)


def test_greedy_is_the_same_however_seeds_fall(tmp_path, student):
    task = make_task(3)
    kept = []
    for seed in (0, 1):
        files = RecordFiles(tmp_path / str(seed), "toy", {})
        files.open(start_anew=False)
        records = engine.solve(task, task.problems(), student, files, sampling=Sampling(5, 0.0), seed=seed)
        kept.append([record["completion"] for record in records])
    assert kept[0] == kept[1]


def test_choices_are_scored_by_the_model(tmp_path, student):
    record = solve(make_task(1, choices=("yes", "no")), student, tmp_path, num_samples=1)[0]
    ids = student.tokenizer("Q: 0\nA:")["input_ids"]
    expected = 0.0
    for token in student.tokenizer(" no")["input_ids"]:  # one token at a time, each after those before it
        expected += torch.log_softmax(student.model(torch.tensor([ids])).logits[0, -1], -1)[token].item()
        ids = [*ids, token]
    assert record["choices"]["no"] == pytest.approx(expected, abs=1e-4)
    assert set(record["choices"]) == {"yes", "no"}


def test_a_summary_counts_problems_and_leaves_out_what_was_not_graded():
    task = make_task()
    records = [
        {"index": i, "scores": {"accuracy": score}, "tokens": 4, "finish": "length" if score is None else "stop"}
        for i, scores in enumerate([[1.0, 0.0], [0.0, 0.0], [None, None]])
        for score in scores
    ]
    found = summarize(task, records, ks=(1, 2))
    assert found["metrics"]["accuracy"]["value"] == 0.25
    assert found["metrics"]["accuracy"]["n"] == 2
    assert found["metrics"]["accuracy"]["not_graded"] == 2
    assert found["metrics"]["pass@1"]["value"] == 0.25
    assert found["metrics"]["pass@2"]["value"] == 0.5
    assert (found["num_problems"], found["num_completions"], found["cut_by_length"]) == (3, 6, 2)


def test_chat_prompts_go_through_the_template(tokenizer):
    import copy

    chatty = copy.copy(tokenizer)
    chatty.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    item = engine.make_items(make_task(1, protocol="chat"), make_task(1).problems(), chatty, 1)[0]
    assert item.text == "<user>Q: 0\nA:<assistant>"


def test_the_command_line_says_what_is_wrong(capsys, tmp_path):
    base = ["--model", "m", "--tasks", "gsm8k"]
    for words, message in (
        (["--num_samples", "5"], "needs --temperature above 0"),
        (["--compare", "a/x", "b/x"], "same name"),
        (["--batch_size", "0"], "at least 1"),
        (["--temperature", "-1"], "--temperature must be at least 0"),
        (["--top_p", "0"], "--top_p above 0"),
        (["--k", "0"], "--k must be at least 1"),
        (["--data_path", "gms8k=/g"], "'gms8k' is none of the tasks gsm8k"),
        (["--protocol", "humaneval=base"], "'humaneval' is none of the tasks gsm8k"),
        (["--output_dir", "/dev/null/out"], "cannot be written"),
    ):
        with pytest.raises(SystemExit):
            parse(base + words)
        assert message in capsys.readouterr().err
    settings = parse(
        [
            *base,
            "--compare",
            "teacher=t",
            "org/base",
            "--data_path",
            "gsm8k=/g",
            "/all",
            "--num_samples",
            "20",
            "--temperature",
            "0.8",
            "--protocol",
            "8-shot",
            "--output_dir",
            str(tmp_path),
        ]
    )
    assert settings.models == {"model": "m", "teacher": "t", "base": "org/base"}
    assert (settings.data_path("gsm8k"), settings.data_path("humaneval")) == ("/g", "/all")
    assert settings.protocol("gsm8k") == "8-shot"
    assert settings.ks == (1, 10)


def test_help_and_typos_answer_without_torch():
    code = "import sys, rl_distill.cli, rl_distill.evals.command_line; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120).returncode == 0


def test_prompts_that_do_not_fit_the_model_are_refused(make_policy):
    model = make_policy(0)  # made for 512 positions
    check_lengths(model, [[1] * 500], 12)
    with pytest.raises(ConfigError, match="at most 12 are left for answers"):
        check_lengths(model, [[1], [1] * 500], 13)
    with pytest.raises(ConfigError, match="a prompt is empty"):
        check_lengths(model, [[1], []], 4)
