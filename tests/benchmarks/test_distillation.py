"""The distillation benchmark: every arm is a run that can be, and the table's differences are paired."""

import json

import pytest

from benchmarks.distillation import ARMS, ROLLOUTS, ROWS, config_of, table
from rl_distill.run_setup.student_arch import shape_of
from rl_distill.student_stages import check_stages


@pytest.mark.parametrize("name", list(ARMS))
def test_every_arm_is_a_run_that_can_be(tmp_path, name):
    config = config_of(ARMS[name], 0, tmp_path / name, tmp_path / "cache", {})
    check_stages(config)
    assert shape_of(config) is not None


def test_arms_of_equal_cost_have_equal_sequences(tmp_path):
    def sequences(name):
        arm = ARMS[name]
        config = config_of(arm, 0, tmp_path, tmp_path, {})
        return arm.ppo_steps * ROLLOUTS + (0 if config.distill is None else config.distill.num_steps * ROWS)

    assert len({sequences(name) for name in ("kd_twice", "kd_ppo", "ppo_twice", "kd_reward_only")}) == 1
    assert sequences("kd_twice") == 2 * sequences("kd")


def result(grades, nll):
    accuracy = sum(grades) / len(grades)
    whole = {"overall": accuracy, "math": accuracy, "code": accuracy}
    return {"accuracy": whole, "grades": grades, "nll": nll, "kl": 0.1, "sequences": 10, "cpu_seconds": 2.0}


def test_the_table_pairs_by_problem_for_one_seed_and_by_seed_for_several(tmp_path):
    def write(name, seed, grades, nll):
        (tmp_path / f"{name}-{seed}").mkdir()
        (tmp_path / f"{name}-{seed}" / "result.json").write_text(json.dumps(result(grades, nll)))

    write("kd", 0, [1.0, 0.0, 0.0, 0.0], 0.5)
    write("t2", 0, [1.0, 1.0, 0.0, 1.0], 0.25)
    (row,) = [line for line in table([0], tmp_path, ["kd", "t2"]).splitlines() if "`t2`" in line]
    # differences 0, 1, 0, 1: mean 1/2, standard deviation sqrt(1/3), standard error sqrt(1/3) / 2 = 0.289
    assert "| 0.750 | 0.750 | 0.750 | +0.500 (0.289) | 0.250 |" in row
    write("kd", 1, [0.0, 0.0, 0.0, 0.0], 0.5)
    write("t2", 1, [0.0, 0.0, 0.0, 0.0], 0.75)
    (row,) = [line for line in table([0, 1], tmp_path, ["kd", "t2"]).splitlines() if "`t2`" in line]
    # over seeds 1/2 and 0: mean 0.25 with standard error 0.25; NLL 0.25 and 0.75
    assert "0.250 ± 0.250 | 0.500 ± 0.250 |" in row
