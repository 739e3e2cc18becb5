"""A teacher in processes of its own gives the run that a shared teacher gives: real `accelerate launch` over gloo."""

import pytest
import torch

from rl_distill.distributed import process_groups
from rl_distill.files import read_jsonl
from rl_distill.teachers.dedicated import pack, unpack
from tests import killable, launched
from tests.distributed.test_deepspeed import NAMES, SETTINGS
from tests.ppo.test_two_processes import COMPARED, assert_same_metrics

TOP_K = {"anchor__estimator": "top_k", "anchor__top_k": 4, "generation__temperature_end": 0.7}
UNEVEN = {"generation__batch_size": 3, "demo__num_train_prompts": 37}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "one"
    killable.finish(folder, **launched.OPTIONS | SETTINGS | UNEVEN)
    return folder


def split(num_teachers: int) -> dict:
    return {"teacher__placement": "dedicated", "teacher__num_processes": num_teachers}


@pytest.mark.parametrize(
    ("launch_file", "num_students", "num_teachers"),
    [
        ("ddp", 1, 2),
        pytest.param("ddp", 2, 1, marks=pytest.mark.slow),
        pytest.param("zero2", 2, 1, marks=pytest.mark.slow),
        pytest.param("zero3", 2, 1, marks=pytest.mark.slow),
        pytest.param("fsdp2", 2, 1, marks=pytest.mark.slow),
    ],
)
def test_a_split_teacher_gives_the_run_of_a_shared_one(launch_file, num_students, num_teachers, one, tmp_path):
    (tmp_path / "cache").symlink_to(one.parent / "cache")
    settings = SETTINGS | UNEVEN | split(num_teachers)
    printed = launched.finish(launch_file, num_students + num_teachers, tmp_path / "run", **settings)
    assert printed.count("report: ") == 1
    assert_same_metrics(tmp_path / "run", one, COMPARED if launch_file == "ddp" else NAMES)
    records = [record for record in read_jsonl(tmp_path / "run" / "metrics.jsonl") if "loss" in record]
    assert all(record["link/times_less_than_logits"] > 5 for record in records)  # 320 ids against 32 hidden units


@pytest.mark.slow
def test_a_split_teacher_reports_its_likeliest_ids(tmp_path):
    killable.finish(tmp_path / "one", **launched.OPTIONS | SETTINGS | TOP_K)
    launched.finish("ddp", 2, tmp_path / "run", **SETTINGS | TOP_K | split(1))
    assert_same_metrics(tmp_path / "run", tmp_path / "one")


def test_packed_rows_come_out_as_they_went_in():
    packed = pack([([5, 6], [7]), ([8], [9, 10, 11])])
    assert packed.dtype == torch.int32
    assert packed.tolist() == [2, 1, 1, 3, 5, 6, 7, 8, 9, 10, 11]
    assert unpack(packed, 2) == ([[5, 6], [8]], [[7], [9, 10, 11]])


def test_a_launch_without_a_process_for_the_student_is_refused():
    with pytest.raises(RuntimeError, match="needs 3 or more processes, and 1 was launched: add --num_processes 3"):
        process_groups.divide(2, timeout_s=5)
