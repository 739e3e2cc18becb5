"""What trains is float32, whatever precision the rest is in, and what is compared is formed in float32."""

import pytest
import torch

from rl_distill import pipeline
from rl_distill.config import ConfigError
from rl_distill.models.actor_critic import ActorCritic, make_critic
from rl_distill.ppo.hf_arguments import check_launch
from rl_distill.progress import Stages
from rl_distill.run_setup import prepare
from tests import own_models
from tests.tiny_run import make_config, make_context, weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A student and teachers stored in bf16, as most models of the hub are."""
    from transformers import AutoModelForCausalLM

    folder = own_models.write(tmp_path_factory.mktemp("models"))
    AutoModelForCausalLM.from_pretrained(folder / "student", dtype=torch.bfloat16).save_pretrained(folder / "student")
    return folder


def test_weights_of_a_student_stored_in_bf16_train_in_float32(folder, tmp_path):
    changes = {"student__dtype": "auto", "ppo__learning_rate": 1e-6, "ppo__num_steps": 2}
    config = own_models.config(folder, tmp_path, teacher__model=str(folder / "large"), **changes)
    trainer = pipeline.make_trainer(config, prepare(config, Stages(quiet=True)))
    before = weights(trainer)
    assert {value.dtype for value in before.values()} == {torch.float32}
    trainer.train()
    moved = [(value != before[name]).float().mean() for name, value in weights(trainer).items() if value.ndim == 2]
    assert min(moved) > 0.9  # in bf16 an update of 1e-6 moves 2 %


def test_bf16_weights_that_would_train_as_they_are_are_refused_with_the_cure(tmp_path):
    config = make_config(tmp_path, student__dtype="bfloat16")
    with pytest.raises(ConfigError, match=r"set student\.dtype: float32 and ppo\.bf16: true .*student\.lora"):
        check_launch(config)
    check_launch(make_config(tmp_path, student__dtype="bfloat16", student__lora={"r": 4}))


@pytest.mark.parametrize("critic", ["shared", "separate", "teacher_informed"])
@pytest.mark.parametrize("autocast", [False, True])
def test_adapters_and_every_critic_train_in_float32_on_a_frozen_bf16_student(tmp_path, critic, autocast):
    settings = {"student__dtype": "bfloat16", "student__lora": {"r": 4}, "ppo__critic": critic, "ppo__bf16": autocast}
    config = make_config(tmp_path, **settings, ppo__num_steps=2)
    context = make_context(config)
    context.student = context.student.to(torch.bfloat16)
    trainer = pipeline.make_trainer(config, context)
    trained = {parameter.dtype for parameter in trainer.model.parameters() if parameter.requires_grad}
    assert trained == {torch.float32}
    trainer.train()
    assert trainer.state.global_step == 4


def test_values_and_logits_are_formed_in_float32_under_autocast(make_policy):
    policy = make_policy()
    ids, places = torch.arange(5, 13).view(2, 4), torch.tensor([0, 1, 5])
    model = ActorCritic(policy, make_critic("shared", policy, 0)).eval()
    torch.nn.init.normal_(model.critic.head.weight)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        hidden_ND = policy.get_decoder()(input_ids=ids).last_hidden_state.flatten(0, 1)[places]
        output = model(ids, places, torch.tensor([6, 7, 11]))
    logits_NV = hidden_ND.double() @ policy.lm_head.weight.double().t()
    expected_N = logits_NV.log_softmax(-1)[range(3), [6, 7, 11]]
    torch.testing.assert_close(output.logprobs_N.double(), expected_N, rtol=1e-6, atol=1e-6)
    values_N = hidden_ND.double() @ model.critic.head.weight[0].double()
    torch.testing.assert_close(output.values_N.double(), values_N, rtol=1e-6, atol=1e-6)
