"""Rows that do not divide over the processes give the run of one process: real `accelerate launch` over gloo."""

import math

import pytest

from rl_distill import distributed
from rl_distill.config import ConfigError, load_config
from rl_distill.ppo.rank_padding import check_rows, rows_per_minibatch
from tests import killable, launched, own_models
from tests.distributed.test_deepspeed import NAMES
from tests.ppo.test_two_processes import COMPARED, assert_same_metrics

CASES = {
    "seven rows": {"ppo__batch_size": 7, "ppo__num_minibatches": 1},
    "minibatches of five": {"ppo__batch_size": 10, "ppo__num_minibatches": 2, "ppo__num_epochs": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize(
    ("launch_file", "num_processes", "case"),
    [
        ("ddp", 2, "seven rows"),
        pytest.param("ddp", 3, "minibatches of five", marks=pytest.mark.slow),  # a process may have none of its rows
        pytest.param("zero3", 2, "minibatches of five", marks=pytest.mark.slow),
    ],
)
def test_rows_that_do_not_divide_train_as_in_one_process(launch_file, num_processes, case, folder, tmp_path):
    settings = own_models.options(
        folder,
        teacher__model=folder / "large",
        ppo__entropy_coef=0.1,
        ppo__max_grad_norm=1e6,  # DeepSpeed clips policy and critic together
        generation__batch_size=2,
        **CASES[case],
    )
    killable.finish(tmp_path / "one", **launched.OPTIONS | settings)
    launched.finish(launch_file, num_processes, tmp_path / "several", **settings)
    names = {*COMPARED, "policy/ratio", "policy/approx_kl", "value/error"}
    assert_same_metrics(tmp_path / "several", tmp_path / "one", names & NAMES if launch_file == "zero3" else names)


@pytest.mark.parametrize(
    ("processes", "batch", "minibatches", "most"),
    [(1, 8, 2, 4), (2, 8, 2, 2), (2, 7, 1, 4), (2, 10, 2, 5), (3, 12, 2, 4), (3, 9, 3, 3)],
)
def test_a_process_has_at_most_so_many_rows_of_a_minibatch(processes, batch, minibatches, most, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    settings = {"ppo.batch_size": batch, "ppo.num_minibatches": minibatches}
    assert rows_per_minibatch(load_config(None, settings)) == most
    shares = [distributed.share(batch, rank) for rank in range(processes)]
    assert [row for share in shares for row in share] == list(range(batch))
    assert {len(share) for share in shares} <= {batch // processes, math.ceil(batch / processes)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ppo.batch_size": 1, "ppo.num_minibatches": 1}, r"batch_size \(1\) is below the number of processes \(2\)"),
        (
            {"ppo.batch_size": 12, "ppo.group_size": 4, "ppo.advantage": "group_mean"},
            "= 3 prompts must divide over 2",
        ),
        (
            {
                "ppo.batch_size": 9,
                "ppo.num_minibatches": 3,
                "generation.engine": "vllm_server",
                "generation.vllm.server_base_url": "http://localhost:8000",
            },
            r"make ppo\.batch_size \(9\) a multiple of the number of processes \(2\)",
        ),
    ],
)
def test_rows_that_cannot_be_shared_out_are_refused(settings, message, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(ValueError, match=message):
        check_rows(load_config(None, settings))


def test_minibatches_of_different_sizes_are_refused():
    with pytest.raises(ConfigError, match=r"must be a multiple of ppo\.num_minibatches"):
        load_config(None, {"ppo.batch_size": 8, "ppo.num_minibatches": 3})
