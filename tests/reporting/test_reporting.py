"""What a run leaves behind is readable by people and programs, also after a crash."""

import json

import pytest

from rl_distill.evals.evaluation import Evaluation, gap_recovered
from rl_distill.files import finite, read_jsonl, write_atomically
from rl_distill.progress import Stages
from rl_distill.reporting.summary import CURVES, draw_curves, sample_text, table, write_evaluations, write_report
from rl_distill.reporting.training_log import MetricsWriter
from rl_distill.types import Completion, Finish, Problem

TEACHER = {"code": 0.5, "math": 0.9, "overall": 0.8}
BEFORE = {"code": 0.3, "math": 0.9, "overall": 0.6}
AFTER = {"code": 0.6, "math": 0.95, "overall": 0.85}


def an_evaluation() -> Evaluation:
    problems = [Problem("math", "k1", "1+1?"), Problem("code", "k2", "def f():"), Problem("math", "k3", "2+2?")]
    completions = [Completion(text, [1], Finish.STOP) for text in ("2", " return", "5")]
    return Evaluation(problems, completions, [1.0, None, 0.0])


def test_gap_recovered_is_the_share_of_the_distance_to_the_teacher():
    gap = gap_recovered(TEACHER, BEFORE, AFTER)
    assert gap["code"] == pytest.approx(1.5)
    assert gap["overall"] == pytest.approx(1.25)
    assert gap["math"] is None  # the student was as good as its teacher from the start


def test_accuracy_leaves_out_what_was_not_graded():
    assert an_evaluation().accuracy() == {"math": 0.5, "overall": 0.5}


def test_the_table_shows_shares_as_percent_and_no_gap_as_a_dash():
    lines = table(TEACHER, BEFORE, AFTER, gap_recovered(TEACHER, BEFORE, AFTER)).splitlines()
    assert lines[2] == "| code | 0.500 | 0.300 | 0.600 | 150 % |"
    assert lines[3].endswith("| - |")


def test_samples_say_the_verdict_in_words():
    text = sample_text(an_evaluation(), 3)
    assert "--- math: right (stop)\n1+1?2" in text
    assert "--- code: not graded" in text
    assert "--- math: wrong" in text


def test_a_torn_last_line_is_left_out(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_jsonl(tmp_path / "m.jsonl") == [{"step": 1}, {"step": 2}]
    assert read_jsonl(tmp_path / "absent.jsonl") == []


def test_an_interrupted_write_leaves_the_old_text(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_atomically(path, "old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"


def test_a_resumed_run_drops_records_after_its_checkpoint(tmp_path):
    class State:
        global_step, is_world_process_zero = 4, True

    for name in ("metrics.jsonl", "timing.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)))
    MetricsWriter(tmp_path, updates_per_step=2).on_train_begin(None, State, None)
    assert read_jsonl(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 2}]
    State.global_step = 0
    MetricsWriter(tmp_path, updates_per_step=2).on_train_begin(None, State, None)
    assert read_jsonl(tmp_path / "metrics.jsonl") == []


def test_the_report_holds_table_curves_and_samples_and_results_are_plain_json(tmp_path):
    records = [
        {"step": s, "reward": 0.1 * s, "kl": 1 / s, "success/math": 0.5, "completions/mean_length": 9.0} for s in (1, 2)
    ]
    records.append({"step": 2, "eval_math": 0.5, "eval_overall": 0.4, "eval_accuracy": 0.4})
    results = {
        "teacher": TEACHER,
        "student_before": BEFORE,
        "student_after": AFTER,
        "gap_recovered": gap_recovered(TEACHER, BEFORE, AFTER),
        "num_test": 100,
        "standard_error": float("nan"),
        "wall_seconds": {"ppo": 12.5},
        "seed": 3,
    }
    write_report(
        tmp_path, results, records, sample_text(an_evaluation(), 2), "accelerate launch launch/ppo.py --seed 3"
    )
    report = (tmp_path / "report.md").read_text()
    assert "| overall | 0.800 | 0.600 | 0.850 | 125 % |" in report
    assert "accelerate launch launch/ppo.py --seed 3" in report
    for name in ("accuracy.png", "rewards.png", "kl.png", "length.png"):
        assert f"]({name})" in report
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "critic.png").exists()  # nothing was logged for it
    assert json.loads((tmp_path / "results.json").read_text())["standard_error"] is None


def test_every_curve_shows_what_its_title_says():
    assert CURVES["rewards.png"].shows("rewards/bleu/mean")
    assert not CURVES["rewards.png"].shows("rewards/bleu/std")
    assert not CURVES["kl.png"].shows("policy/approx_kl")
    assert draw_curves([], None, {}) == []


def test_evaluations_hold_every_problem_of_every_stage(tmp_path):
    write_evaluations(tmp_path, {"before": an_evaluation(), "after": an_evaluation()})
    records = read_jsonl(tmp_path / "evaluations.jsonl")
    assert len(records) == 6
    assert records[1] == {
        "stage": "before",
        "task": "code",
        "prompt": "def f():",
        "completion": " return",
        "grade": None,
    }


def test_stages_keep_their_seconds(capsys):
    stages = Stages()
    with stages("ppo", "training"):
        sum(range(200_000))
    assert stages.seconds["ppo"] > 0
    assert stages.cpu_seconds["ppo"] >= 0
    assert "[ppo] training ..." in capsys.readouterr().out


def strict(line):
    return json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_metrics_hold_null_where_there_is_no_number(tmp_path):
    class State:
        global_step, is_world_process_zero = 2, True

    writer = MetricsWriter(tmp_path, updates_per_step=2)
    writer.on_log(None, State, None, logs={"loss": 1.5, "explained_variance": float("nan"), "kl": float("inf")})
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert strict(line) == {"step": 1, "loss": 1.5, "explained_variance": None, "kl": None}
    writer.on_train_begin(None, State, None)  # a resumed run writes them again
    assert strict((tmp_path / "metrics.jsonl").read_text())["kl"] is None


def test_nested_numbers_are_made_finite():
    nan = float("nan")
    assert finite({"a": [1, nan, {"b": -float("inf")}], "c": (nan,), "d": "nan"}) == {
        "a": [1, None, {"b": None}], "c": [None], "d": "nan",
    }  # fmt: skip


def test_the_table_says_what_was_not_graded():
    nan = {"overall": float("nan")}
    assert table(nan, nan, nan, {"overall": None}).splitlines()[-1] == (
        "| overall | not graded | not graded | not graded | - |"
    )


def test_a_report_without_grades_names_no_error_of_nan(tmp_path):
    nan = {"overall": float("nan")}
    results = {"teacher": nan, "student_before": nan, "student_after": nan, "gap_recovered": {"overall": None}}
    results |= {"num_test": 4, "standard_error": float("nan"), "wall_seconds": {}, "seed": 0}
    write_report(tmp_path, results, [], "", "a command")
    report = (tmp_path / "report.md").read_text()
    assert "none of the answers could be graded" in report
    assert "nan" not in report
