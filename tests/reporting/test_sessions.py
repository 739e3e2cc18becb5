"""A run in several sessions: what it spent in all, the command that makes the whole of it, and nothing solved twice."""

import json
import time

import pytest

from rl_distill import pipeline
from rl_distill.evals.evaluation import Evaluation
from rl_distill.evals.stored import store, stored
from rl_distill.progress import Stages
from rl_distill.reporting.sessions import Sessions, read_sessions, reproduce, total, without_resume
from rl_distill.types import Completion, Finish, Problem
from tests.tiny_run import make_config, make_context

PROBLEMS = [Problem("math", "a", "1+1?"), Problem("math", "b", "2+2?")]
ANSWERS = [Completion("2", [5, 1], Finish.STOP), Completion("né\n", [6], Finish.LENGTH)]


def test_seconds_are_summed_by_stage():
    parts = [{"before": 2.5, "ppo": 10.0}, {"ppo": 5.25, "after": 1.0}]
    assert list(total(parts).items()) == [("before", 2.5), ("ppo", 15.25), ("after", 1.0)]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("rl-distill ppo --resume_from_checkpoint latest --seed 1", "rl-distill ppo --seed 1"),
        ("rl-distill ppo --seed 1 --resume_from_checkpoint", "rl-distill ppo --seed 1"),
        ("rl-distill ppo --resume_from_checkpoint --seed 1", "rl-distill ppo --seed 1"),
        ("rl-distill ppo --resume_from_checkpoint=runs/x/checkpoint-4", "rl-distill ppo"),
        ("rl-distill ppo --data.prompt_template 'Q: {q}'", "rl-distill ppo --data.prompt_template 'Q: {q}'"),
    ],
)
def test_the_command_of_the_whole_run_does_not_resume(command, expected):
    assert without_resume(command) == expected


def test_other_settings_of_a_later_session_are_told():
    same = ["rl-distill ppo --seed 1", "rl-distill ppo --seed 1 --resume_from_checkpoint latest"]
    assert reproduce(same) == "rl-distill ppo --seed 1"
    changed = [*same, "rl-distill ppo --seed 1 --ppo.num_steps 9 --resume_from_checkpoint"]
    assert reproduce(changed) == (
        "rl-distill ppo --seed 1   # then resumed with other settings: rl-distill ppo --seed 1 --ppo.num_steps 9"
    )


def test_a_stage_that_has_not_ended_counts_so_far(tmp_path):
    stages = Stages(quiet=True)
    with stages("ppo", ""):
        time.sleep(0.02)
        Sessions(tmp_path, stages, "a command", resumed=False).write()
        (session,) = read_sessions(tmp_path / "sessions.json")
        assert session["wall_seconds"]["ppo"] >= 0.02
    assert stages.running == {}
    again = Sessions(tmp_path, Stages(quiet=True), "a command", resumed=True)
    assert again.summary()["wall_seconds"] == session["wall_seconds"]
    assert Sessions(tmp_path, Stages(quiet=True), "a command", resumed=False).summary()["num_sessions"] == 1


def test_a_damaged_file_is_no_session(tmp_path):
    path = tmp_path / "sessions.json"
    assert read_sessions(path) == []
    path.write_text('[{"command')
    assert read_sessions(path) == []


def test_evaluations_come_back_as_they_were_stored(tmp_path):
    path, before = tmp_path / "before.json", {"student": Evaluation(PROBLEMS, ANSWERS, [1.0, None])}
    store(path, "key", before)
    assert stored(path, "key", PROBLEMS) == before
    assert stored(path, "another", PROBLEMS) is None
    assert stored(path, "key", PROBLEMS[:1]) is None
    path.write_text(path.read_text()[:-20])
    assert stored(path, "key", PROBLEMS) is None
    assert stored(tmp_path / "absent.json", "key", PROBLEMS) is None


def run(folder, command, **settings):
    config = make_config(folder, checkpoint__every_steps=1, **settings)
    return pipeline.run(config, make_context(config), Stages(quiet=True), command)


def test_a_resumed_run_reports_all_its_sessions_and_solves_nothing_again(tmp_path, monkeypatch):
    first = run(tmp_path, "rl-distill ppo", ppo__num_steps=2)
    assert first["num_sessions"] == 1
    monkeypatch.setattr(pipeline, "solve_with", lambda *_: pytest.fail("solved again"))
    command = "rl-distill ppo --resume_from_checkpoint latest"
    second = run(tmp_path, command, ppo__num_steps=4, resume_from_checkpoint="latest")
    assert (second["num_sessions"], second["command"]) == (2, "rl-distill ppo")
    assert (second["teacher"], second["student_before"]) == (first["teacher"], first["student_before"])
    sessions = read_sessions(tmp_path / "sessions.json")
    assert [session["command"] for session in sessions] == ["rl-distill ppo", command]
    seconds = [session["wall_seconds"]["ppo"] for session in sessions]
    assert second["wall_seconds"]["ppo"] == pytest.approx(sum(seconds), abs=0.002)
    assert second["wall_seconds"]["before"] == first["wall_seconds"]["before"]
    assert second["ledger"]["student_sequences"] == 4 * 8
    assert json.loads((tmp_path / "results.json").read_text())["num_sessions"] == 2
    assert "`rl-distill ppo`" in (tmp_path / "report.md").read_text()


def test_another_student_is_solved_anew(tmp_path):
    config = make_config(tmp_path)
    context, other = make_context(config), make_context(config)
    other.student = make_context(config).teacher.model
    assert pipeline.before_key(config, context) == pipeline.before_key(config, make_context(config))
    assert pipeline.before_key(config, context) != pipeline.before_key(config, other)
    longer = make_config(tmp_path, generation__max_completion_length=20)
    assert pipeline.before_key(config, context) != pipeline.before_key(longer, context)
