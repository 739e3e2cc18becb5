"""A distillation stage draws the sources of a mixture by their shares; free text carries no cross entropy."""

import torch

from rl_distill.config import RunConfig, load_config
from rl_distill.distill.examples import Example, example_order
from tests.distill_case import make_distiller

MIXTURE = [
    {"train": "a", "task": "a", "share": 0.7},
    {"train": "b", "task": "b", "name": "text", "share": 0.3, "anchor_only": True},
]


def settings(**data) -> RunConfig:
    own = {"demo": None, "student.model": "s", "teacher.model": "t", "anchor.schedule": "fixed", "distill": {}}
    return load_config(None, own | {f"data.{name}": value for name, value in data.items()})


def examples():
    short = [Example("a", [1] * 5, [2] * (1 + i % 9), "a") for i in range(60)]
    return short + [Example("b", [1] * 20, [2] * (i % 90), "text", True) for i in range(40)]


def test_the_shares_hold_by_rows_and_by_tokens():
    given = examples()
    for by, weight in (("rows", lambda _: 1), ("tokens", lambda e: e.num_tokens)):
        config = settings(mixture=MIXTURE, share_by=by)
        order = example_order(given, config.distill, config)
        drawn = [given[row.example] for step in range(100) for row in order.rows(step)]
        total = sum(map(weight, drawn))
        text = sum(weight(example) for example in drawn if example.source == "text")
        assert abs(text / total - 0.3) < 0.01
        name = "share" if by == "rows" else "tokens"
        assert abs(order.metrics()[f"sampling/{name}/text"] - text / total) < 1e-9


def test_a_resumed_stage_draws_the_same_rows():
    config = settings(mixture=MIXTURE, share_by="tokens")
    whole = example_order(examples(), config.distill, config)
    expected = [whole.rows(step) for step in range(20)]
    later = example_order(examples(), config.distill, config)
    assert [later.rows(step) for step in range(15, 20)] == expected[15:]


def test_without_a_mixture_the_order_is_that_of_before():
    config = settings(train="a")
    order = example_order(examples(), config.distill, config)
    assert order.by_shares is None
    assert not order.metrics()
    first = [row.example for step in range(3) for row in order.rows(step)]
    assert len(set(first)) == len(first)  # one pass, nothing twice


def test_free_text_carries_no_cross_entropy(tmp_path):
    trainer = make_distiller(tmp_path, batch_size=8, micro_batch_size=8)
    taught = trainer.examples
    trainer.examples = [Example(e.task, e.prompt_ids, e.completion_ids, "text", True) for e in taught]
    (piece,) = trainer.get_train_dataloader().micro_batches(0)
    assert not piece.fixed_N.any()
    assert piece.num_fixed_tokens == 0
    assert piece.num_tokens == sum(map(len, piece.completion_ids)) > 0
    loss, parts = trainer._loss(*_outputs(trainer, piece))
    assert parts["loss/task"] == 0
    assert parts["loss/kd"] > 0
    assert torch.isfinite(loss)


def _outputs(trainer, piece):
    output = trainer.student(piece.tokens, trainer.soft_targets(piece, 1.0), trainer.divergence, temperature=1.0)
    return output, piece, 1.0
