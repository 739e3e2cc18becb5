"""Micro-batches by a budget of tokens: the gradients of those by rows, in as many forwards as the lengths need."""

import pytest
import torch

from rl_distill.config import load_config
from rl_distill.maths.batching import within_tokens
from rl_distill.ppo.minibatches import micro_batches
from rl_distill.ppo.rank_padding import PaddedMicroBatches, micro_batches_per_update
from tests import killable, launched, own_models
from tests.ppo.test_two_processes import COMPARED, assert_same_metrics
from tests.tiny_run import make_config, make_trainer, weights


@pytest.mark.parametrize(
    ("lengths", "budget", "expected"),
    [
        ([5, 2, 3, 2], 6, [[1, 3], [2], [0]]),  # 3 x 3 and 2 x 5 do not fit
        ([5, 2, 3, 2], 9, [[1, 3, 2], [0]]),
        ([5, 2, 3, 2], 1, [[1], [3], [2], [0]]),
        ([4, 4], 8, [[0, 1]]),
        ([], 8, []),
    ],
)
def test_rows_by_tokens(lengths, budget, expected):
    assert list(within_tokens(lengths, budget)) == expected


@pytest.mark.parametrize("budget", [1, 60, 150, 100_000])
def test_never_more_pieces_than_announced(budget):
    draw = torch.Generator().manual_seed(budget)
    config = load_config(None, {"ppo.batch_size": 16, "ppo.num_minibatches": 1, "ppo.micro_batch_tokens": budget})
    for longest in (7, 30):
        announced = micro_batches_per_update(config, longest)
        for _ in range(50):
            lengths = torch.randint(1, longest + 1, (16,), generator=draw).tolist()
            assert len(list(within_tokens(lengths, budget))) <= announced
        assert len(list(within_tokens([longest] * 16, budget))) == announced


def gradients(trainer, pieces):
    trainer.model.zero_grad()
    for piece in pieces:
        if piece:
            trainer.compute_loss(trainer.model, piece).backward()
    return {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


def test_gradients_are_those_of_rows(tmp_path):
    trainer = make_trainer(tmp_path, ppo__num_minibatches=1, teacher__autocast="off")
    rollout = trainer.collector.collect(trainer.actor_critic, 0)
    rows, pad = list(range(8)), trainer.collector.tokenizer.pad_token_id
    expected = gradients(trainer, micro_batches(rollout, rows, trainer.config, pad))
    for budget in (1, 150, 400):
        config = make_config(tmp_path, ppo__num_minibatches=1, ppo__micro_batch_tokens=budget)
        number = micro_batches_per_update(config, trainer.collector.longest_row)
        pieces = PaddedMicroBatches(rollout, config, pad, number).micro_batches(rows)
        assert len(pieces) == number
        shapes = [piece["input_ids_BL"].shape for piece in pieces if piece]
        assert all(shape.numel() <= budget or shape[0] == 1 for shape in shapes)
        assert sum(shape[0] for shape in shapes) == 8
        found = gradients(trainer, pieces)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_a_run_by_tokens_is_the_run_by_rows(tmp_path):
    by_rows, by_tokens = (
        make_trainer(tmp_path / name, teacher__autocast="off", ppo__num_steps=2, **settings)
        for name, settings in (("rows", {}), ("tokens", {"ppo__micro_batch_tokens": 130}))
    )
    by_rows.train()
    by_tokens.train()
    assert by_tokens.state.global_step == by_rows.state.global_step == 4
    for name, expected in weights(by_rows).items():
        torch.testing.assert_close(weights(by_tokens)[name], expected, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
def test_processes_with_different_pieces_stay_in_step(tmp_path):
    folder = own_models.write(tmp_path)
    settings = own_models.options(
        folder,
        teacher__model=folder / "large",
        ppo__batch_size=7,
        ppo__num_minibatches=1,
        ppo__micro_batch_tokens=40,
        ppo__num_steps=2,
    )
    killable.finish(tmp_path / "one", **launched.OPTIONS | settings)
    launched.finish("ddp", 2, tmp_path / "several", **settings)
    assert_same_metrics(tmp_path / "several", tmp_path / "one", {*COMPARED, "policy/ratio", "value/error"})
