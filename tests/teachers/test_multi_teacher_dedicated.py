"""Several teachers in processes of their own give the run that they give in the student's: real `accelerate launch`."""

import pytest

from tests import killable, launched, own_models
from tests.ppo.test_two_processes import COMPARED, assert_same_metrics

SELECTIONS = {
    "by_task": {},
    "ensemble": {},
    "ensemble by top k": {"anchor__estimator": "top_k", "anchor__top_k": 4},
    "curriculum": {"teacher__switch_gap": 1.0},  # the second takes over at the first evaluation
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("models"))


@pytest.mark.slow
@pytest.mark.parametrize("selection", SELECTIONS)
def test_several_split_teachers_give_the_run_of_shared_ones(folder, tmp_path, selection):
    small = {"model": str(folder / "small"), **({"tasks": ["math"]} if selection == "by_task" else {})}
    several = {"teacher__selection": selection.split()[0], "teachers": [small, {"model": str(folder / "large")}]}
    settings = own_models.options(folder, **several, **SELECTIONS[selection])
    killable.finish(tmp_path / "shared", **launched.OPTIONS | settings)
    launched.finish("ddp", 3, tmp_path / "split", **settings, teacher__placement="dedicated", teacher__num_processes=1)
    assert_same_metrics(tmp_path / "split", tmp_path / "shared", {*COMPARED, "teacher"})
