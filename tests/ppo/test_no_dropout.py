"""PPO compares new with old log-probabilities: dropout would make them differ before anything was learned."""

import dataclasses

import pytest
import torch
from transformers import FalconConfig, FalconForCausalLM, GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from rl_distill import pipeline
from rl_distill.models.actor_critic import ActorCritic, make_critic
from tests.tiny_run import make_config, make_context

ONE_UPDATE = {"ppo__num_steps": 1, "ppo__num_minibatches": 1, "teacher__autocast": "off"}


def gpt2(vocab_size: int) -> GPT2LMHeadModel:
    """With the dropout of its defaults, 0.1 in three places."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, n_embd=32, n_layer=2, n_head=4, n_positions=256))


def falcon(vocab_size: int) -> FalconForCausalLM:
    """Reads its rates from the config in every forward pass."""
    return FalconForCausalLM(
        FalconConfig(
            vocab_size=vocab_size,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            hidden_dropout=0.1,
            attention_dropout=0.1,
        )
    )


def opt(vocab_size: int) -> OPTForCausalLM:
    """Leaves out whole layers by chance."""
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=vocab_size,
            hidden_size=32,
            ffn_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            word_embed_proj_dim=32,
            layerdrop=0.5,
        )
    )


def only_update(folder, student=None, **settings) -> dict[str, float]:
    """The record of a run whose one update follows its one rollout."""
    config = make_config(folder, **ONE_UPDATE | settings)
    context = make_context(config)
    if student is not None:
        context = dataclasses.replace(context, student=student(len(context.tokenizer)))
    trainer = pipeline.make_trainer(config, context)
    trainer.train()
    return next(record for record in trainer.state.log_history if "policy/approx_kl" in record)


@pytest.mark.parametrize(
    ("student", "settings"),
    [
        (gpt2, {}),
        (gpt2, {"ppo__critic": "separate", "student__gradient_checkpointing": True}),
        (falcon, {}),
        (opt, {}),
        (None, {"student__lora": {"r": 4, "alpha": 64, "dropout": 0.1}}),
        (None, {"student__lora": {"r": 4, "dropout": 0.1}, "student__gradient_checkpointing": True}),
    ],
    ids=["gpt2", "gpt2 checkpointed", "falcon", "opt", "lora", "lora checkpointed"],
)
def test_at_the_first_update_nothing_has_moved(tmp_path, student, settings):
    if "student__lora" in settings:  # adapters start at zero, where dropout in them changes nothing
        settings = settings | {"ppo__num_steps": 2, "ppo__learning_rate": 0.05}
        config = make_config(tmp_path, **ONE_UPDATE | settings)
        with pytest.warns(UserWarning, match=r"trains without dropout: Dropout=0\.1 is ignored"):
            trainer = pipeline.make_trainer(config, make_context(config))
        trainer.train()
        record = [r for r in trainer.state.log_history if "policy/approx_kl" in r][-1]
    else:
        with pytest.warns(UserWarning, match="PPO trains without dropout: .* is ignored"):
            record = only_update(tmp_path, student, **settings)
    assert record["policy/clip_fraction"] == 0
    assert abs(record["policy/approx_kl"]) < 1e-6
    assert record["policy/ratio"] == pytest.approx(1.0, abs=1e-5)


def test_the_forward_of_training_mode_is_that_of_evaluation_mode():
    policy = gpt2(64)
    model = ActorCritic(policy, make_critic("separate", policy, 0))
    torch.nn.init.normal_(model.critic.head.weight)
    ids, places, targets = torch.randint(64, (2, 9)), torch.arange(6), torch.randint(64, (6,))
    outputs = [model.train(training)(ids, places, targets) for training in (True, False)]
    assert torch.equal(outputs[0].logprobs_N, outputs[1].logprobs_N)
    assert torch.equal(outputs[0].values_N, outputs[1].values_N)


def test_a_separate_critics_trunk_is_checkpointed_with_the_policy(make_policy):
    policy = make_policy()
    model = ActorCritic(policy, make_critic("separate", policy, 0))
    model.gradient_checkpointing_enable()
    assert policy.is_gradient_checkpointing
    assert all(layer.gradient_checkpointing for layer in model.critic.trunk.layers)
    model.gradient_checkpointing_disable()
    assert not any(layer.gradient_checkpointing for layer in model.critic.trunk.layers)
