"""The arms of the ablation: each runs whole on a tiny job, expert iteration keeps its budget, the table is right."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import ablation, expert_iteration, rivals
from rl_distill.config import SFTStageConfig
from rl_distill.config.command_line import parse
from rl_distill.demo.problems import make_problems
from rl_distill.distill.sft import TrainingText, fine_tune
from rl_distill.types import Problem

TINY = {
    "demo.teacher_sft.num_steps": 3,
    "demo.student_sft.num_steps": 2,
    "demo.num_teacher_problems": 200,
    "demo.num_teacher_outputs": 16,
    "demo.num_train_prompts": 24,
    "demo.num_validation": 4,
    "demo.num_test": 6,
    "ppo.num_steps": 2,
    "ppo.batch_size": 16,
    "ppo.critic_warmup_steps": 0,
    "generation.max_completion_length": 12,
    "checkpoint.every_minutes": "null",
    "num_threads": 1,
    "report_to": "[]",
}
SETTINGS = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """Where the arms share the teacher and the start of one seed."""
    return tmp_path_factory.mktemp("ablation")


SLOW_ARMS = [
    pytest.param(arm, marks=pytest.mark.slow)
    for arm in ("group_mean_8", "two_epochs", "reward_only_1e-4", "reward_only_3e-5", "teacher_right", "routed")
]


@pytest.mark.parametrize("arm", ["full", "expert_iteration", *SLOW_ARMS])
def test_an_arm_runs_in_a_process_of_its_own_from_the_shared_cache(arm, output):
    ablation.run_arm(arm, 0, output, SETTINGS)
    log = (output / f"{arm}-0" / "log.txt").read_text()
    assert (output / f"{arm}-0" / "results.json").is_file(), log[-2000:]
    results = json.loads((output / f"{arm}-0" / "results.json").read_text())
    assert results["ledger"]["student_sequences"] == 2 * 16
    assert set(results["student_after"]) == set(results["teacher"])
    teachers = [path.name for path in (output / "cache").iterdir() if path.name.startswith("teacher-")]
    assert len(teachers) == 1  # made by the first arm, found by the others


@pytest.mark.slow
def test_an_arm_that_cannot_run_leaves_its_reason_and_no_results(output, capsys):
    """The tiny teacher writes nothing that passes the check, so that nothing is left of a verified cold start."""
    ablation.run_arm("verified_start", 0, output, SETTINGS)
    assert "verified_start seed 0: FAILED" in capsys.readouterr().out
    assert "none of the teacher's 16 texts passes the check" in (output / "verified_start-0" / "log.txt").read_text()
    assert not (output / "verified_start-0" / "results.json").exists()


def test_arms_differ_from_the_full_recipe_only_in_what_their_name_says():
    def config_of(arm: str) -> dict:
        return parse(ablation.MORE_ARMS[arm][1]).to_dict()

    base = parse([]).to_dict()
    assert config_of("group_mean_8") == base | {"ppo": base["ppo"] | {"advantage": "group_mean", "group_size": 8}}
    assert config_of("two_epochs") == base | {"ppo": base["ppo"] | {"num_epochs": 2}}
    assert config_of("verified_start") == base | {"demo": base["demo"] | {"only_verified": True}}
    assert config_of("teacher_right") == base | {"anchor": base["anchor"] | {"prompts": "teacher_right"}}
    assert config_of("routed") == base | {"anchor": base["anchor"] | {"prompts": "routed", "schedule": "fixed"}}
    for arm, rate in (("reward_only_1e-4", 1e-4), ("reward_only_3e-5", 3e-5)):
        changed = {"anchor": base["anchor"] | {"placement": "none"}, "ppo": base["ppo"] | {"learning_rate": rate}}
        assert config_of(arm) == base | changed


def test_expert_iteration_spends_the_main_jobs_sequences_in_seven_equal_rounds():
    assert expert_iteration.round_sizes(350 * 128) == [6400] * 7
    assert expert_iteration.round_sizes(30) == [5, 5, 4, 4, 4, 4, 4]
    stage = expert_iteration.stage_of(6400)
    assert (stage.num_steps, stage.batch_size) == (200, 32)


def test_expert_iteration_draws_each_prompt_once_per_pass_and_goes_on_where_the_last_round_ended():
    problems = [Problem("math", str(number), f"{number}?") for number in range(10)]
    rounds = [expert_iteration.drawn(problems, first, 5, seed=3) for first in (0, 5, 10, 15)]
    first_pass, second_pass = rounds[0] + rounds[1], rounds[2] + rounds[3]
    assert sorted(p.key for p in first_pass) == sorted(p.key for p in second_pass) == sorted(p.key for p in problems)
    assert first_pass != second_pass


def test_exactly_the_samples_that_pass_the_check_become_lessons(tmp_path, tokenizer, make_policy):
    """A student that knows three solutions by heart, and three wrong answers as well."""
    config = parse([*SETTINGS, "--generation.max_completion_length", "64", "--output_dir", str(tmp_path)])
    problems = make_problems("train", 6, 0, math_share=1.0)
    right, wrong = problems[:3], problems[3:]
    by_heart = [TrainingText(p.prompt, p.solution) for p in right] + [TrainingText(p.prompt, "no idea") for p in wrong]
    student = make_policy(hidden_size=64)
    fine_tune(student, tokenizer, by_heart, SFTStageConfig(150, 12, 1e-2, 10), seed=0, work_dir=tmp_path)
    context = SimpleNamespace(tokenizer=tokenizer, student=student)
    found = expert_iteration.verified_samples(config, context, [*wrong, *right], "round")
    assert found == by_heart[:3]


def test_each_round_learns_from_the_teachers_texts_and_all_that_was_verified_so_far(tmp_path, tokenizer, make_policy):
    """A student that solves the only prompt: nearly every sample is a lesson, and lessons grow with every round."""
    config = parse([*SETTINGS, "--generation.max_completion_length", "64", "--output_dir", str(tmp_path)])
    (problem,) = make_problems("train", 1, 0, math_share=1.0)
    text, student = TrainingText(problem.prompt, problem.solution), make_policy(hidden_size=64)
    fine_tune(student, tokenizer, [text], SFTStageConfig(100, 4, 1e-2, 10), seed=0, work_dir=tmp_path)
    context = SimpleNamespace(tokenizer=tokenizer, student=student, splits=SimpleNamespace(train=[problem]))
    before = student.model.embed_tokens.weight.detach().clone()
    rounds = expert_iteration.expert_iteration(config, context, [text])
    assert [told["sampled"] for told in rounds] == expert_iteration.round_sizes(2 * 16)
    assert [told["lessons"] for told in rounds] == list(
        itertools.accumulate((told["verified"] for told in rounds), initial=1)
    )[1:]
    assert sum(told["verified"] for told in rounds) >= 30
    assert not torch.equal(before, student.model.embed_tokens.weight)


def results_of(after: float, teacher_written: int = 0) -> dict:
    return {
        "teacher": {"math": 0.8, "overall": 0.8},
        "student_before": {"math": 0.4, "overall": 0.4},
        "student_after": {"math": after, "overall": after},
        "gap_recovered": {"math": (after - 0.4) / 0.4, "overall": (after - 0.4) / 0.4},
        "cpu_seconds": {"ppo": 10.0},
        "ledger": {"student_sequences": 32, "teacher_tokens_generated": teacher_written, "teacher_tokens_scored": 0},
    }


def write(output: Path, arm: str, seed: int, after: float) -> None:
    folder = output / f"{arm}-{seed}"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results_of(after)))


def rows(text: str) -> dict[str, list[str]]:
    """The cells by the row's name."""
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {cells[0]: cells[1:] for cells in split}


def test_the_table_leaves_unfinished_runs_out_and_pairs_by_seed(tmp_path):
    for seed, after in enumerate([0.8, 0.9, 0.7, 0.8, 0.8]):
        write(tmp_path, "full", seed, after)
    write(tmp_path, "two_epochs", 1, 0.8)
    write(tmp_path, "two_epochs", 2, 0.4)
    (tmp_path / "two_epochs-3").mkdir()
    (tmp_path / "two_epochs-3" / "results.json").write_text('{"teacher": ')  # being written
    text = ablation.table(tmp_path, [0, 1, 2, 3, 4], ["full", "two_epochs", "group_mean_8"])
    found = rows(text)
    # of .8 .9 .7 .8 .8: mean .8, sample variance .02 / 4, standard error sqrt(.005 / 5)
    assert found["full recipe"][0] == "0.800 ± 0.032"
    # full minus arm over seeds 1 and 2: .1 and .3, mean .2, standard error .1
    epochs = found["two PPO epochs per rollout (2 of 5 seeds)"]
    assert (epochs[0], epochs[2], epochs[3]) == ("0.600 ± 0.200", "100 % / 0 %", "0.200 ± 0.100")
    assert not any("of 8" in name for name in found)
    assert "Not finished: two_epochs, seeds 0, 3, 4." in text
    assert "Not finished: group_mean_8, seeds 0, 1, 2, 3, 4." in text


def test_a_table_of_nothing_says_so(tmp_path):
    assert ablation.table(tmp_path, [0], ["full"]).startswith(f"No finished run in {tmp_path}.")


def test_table_only_runs_nothing(tmp_path, monkeypatch, capsys):
    write(tmp_path, "full", 0, 0.8)
    monkeypatch.setattr("sys.argv", ["ablation.py", "--output", str(tmp_path), "--seeds", "0", "1", "--table_only"])
    ablation.main()
    assert "full recipe (1 of 2 seeds)" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full-0", "table.md"]


def test_every_arm_has_a_name_of_its_own():
    names = [ablation.arm_name(arm) for arm in [*ablation.PPO_ARMS, *ablation.MORE_ARMS, *ablation.RIVAL_ARMS]]
    assert len(set(names)) == len(names)
    assert set(rivals.ARMS) == set(ablation.RIVAL_ARMS)
