"""Only the critic learns during its warm-up: the policy keeps every bit, and its learning rate waits for it."""

import pytest
import torch

from rl_distill.maths.schedules import warmup_cosine
from tests.tiny_run import make_trainer, weights

WARMUP = {"ppo__num_steps": 4, "ppo__critic_warmup_steps": 3, "ppo__weight_decay": 0.1, "ppo__entropy_coef": 0.1}


@pytest.mark.parametrize("critic", ["shared", "separate", "teacher_informed"])
def test_the_policy_keeps_every_bit_while_the_critic_learns(tmp_path, critic):
    trainer = make_trainer(tmp_path, ppo__critic=critic, **WARMUP)
    trainer.args.max_steps = trainer.args.max_steps * 3 // 4  # ended with the warm-up
    before = weights(trainer)
    trainer.train()
    moved = {name for name, value in weights(trainer).items() if not torch.equal(value, before[name])}
    assert "critic.head.weight" in moved or "critic.mlp.2.weight" in moved
    assert all(name.startswith("critic.") for name in moved)
    moments = [trainer.optimizer.state[parameter]["exp_avg"] for parameter in trainer.model.policy.parameters()]
    assert not any(moment.any() for moment in moments)
    last = next(record for record in reversed(trainer.state.log_history) if "grad_norm" in record)
    assert (last["grad_norm"], last["grad_norm_critic"] > 0) == (0.0, True)


def test_the_policys_schedule_starts_with_its_first_update_and_the_critics_with_the_run(tmp_path):
    trainer = make_trainer(
        tmp_path,
        ppo__num_steps=8,
        ppo__critic_warmup_steps=3,
        ppo__warmup_steps=2,
        ppo__learning_rate=1e-3,
        ppo__value_learning_rate=4e-3,
    )
    rates = []
    trainer.create_optimizer()
    trainer.optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.append([group["lr"] for group in optimizer.param_groups])
    )
    trainer.train()
    policy, critic = [row[0] for row in rates], [row[-1] for row in rates]
    assert policy[:6] == [0.0] * 6  # three steps of two updates
    assert policy[6:11] == pytest.approx([0.0, 0.25e-3, 0.5e-3, 0.75e-3, 1e-3])
    assert critic[:5] == pytest.approx([0.0, 1e-3, 2e-3, 3e-3, 4e-3])
    assert all(row[0] == row[1] for row in rates)  # with and without weight decay


def test_the_schedule_by_hand():
    at = [warmup_cosine(u, begin=4, warmup=2, total=10, floor=0.2) for u in (0, 3, 4, 5, 6, 8, 10, 11)]
    assert at == pytest.approx([0, 0, 0, 0.5, 1, 0.6, 0.2, 0.2])
    assert warmup_cosine(0, begin=0, warmup=0, total=10, floor=0.2) == 1
