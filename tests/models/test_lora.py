"""LoRA: adapters and the critic train, the base stays; checkpoints hold what is trained; the export is merged."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from rl_distill import pipeline
from rl_distill.config import ConfigError
from rl_distill.models.loading import load
from rl_distill.models.lora import quantization_config
from rl_distill.progress import Stages
from rl_distill.run_setup import prepare
from tests import own_models
from tests.tiny_run import make_config, make_context, make_trainer, weights

LORA = {"student__lora": {"r": 4, "alpha": 8}, "ppo__learning_rate": 1e-2}


def test_adapters_and_critic_train_and_the_base_stays(tmp_path):
    trainer = make_trainer(tmp_path, **LORA)
    before = weights(trainer)
    trainer.train()
    moved = {name for name, value in weights(trainer).items() if not torch.equal(value, before[name])}
    assert any("lora_B" in name for name in moved)
    assert any(name.startswith("critic.") for name in moved)
    assert all("lora_" in name or name.startswith("critic.") for name in moved)
    grouped = sum(p.numel() for group in trainer.optimizer.param_groups for p in group["params"])
    assert grouped == sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)


def test_a_resumed_lora_run_equals_one_never_stopped_and_stores_no_base_weights(tmp_path):
    options = LORA | {"ppo__num_steps": 3, "checkpoint__every_steps": 1, "student__lora": {"r": 4, "dropout": 0.1}}
    whole = make_trainer(tmp_path / "whole", **options)
    pipeline.train(whole.config, whole)
    saved = load_file(tmp_path / "whole" / "checkpoint-4" / "model.safetensors")
    assert all("lora_" in name or name.startswith("critic.") for name in saved)
    torch.manual_seed(99)
    again = make_trainer(tmp_path / "again", **options, resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    pipeline.train(again.config, again)
    for name, expected in weights(whole).items():
        assert torch.equal(weights(again)[name], expected), name


def test_the_export_is_a_plain_model_with_the_adapters_merged(tmp_path):
    config = make_config(tmp_path, **LORA, student__gradient_checkpointing=True)
    context = make_context(config)
    trainer = pipeline.make_trainer(config, context)
    pipeline.train(config, trainer)
    ids = torch.tensor([[5, 6, 7, 8]])
    expected = trainer.model.policy.eval()(ids).logits
    student = AutoModelForCausalLM.from_pretrained(pipeline.export(config, trainer, context.tokenizer))
    assert not any("lora" in name for name, _ in student.named_parameters())
    assert torch.allclose(student(ids).logits, expected, atol=1e-5)
    assert torch.allclose(trainer.model.policy(ids).logits, expected, atol=1e-5)


def test_the_adapters_are_kept_beside_the_merged_student(tmp_path):
    """They are an adapter folder as any: on the same base they give the merged student's logits."""
    base = own_models.write(tmp_path / "models")
    config = own_models.config(base, tmp_path / "run", teacher__model=str(base / "large"), **LORA)
    context = prepare(config, Stages(quiet=True))
    trainer = pipeline.make_trainer(config, context)
    pipeline.train(config, trainer)
    student, _ = load(pipeline.export(config, trainer, context.tokenizer))
    again, tokenizer = load(tmp_path / "run" / "adapters")
    ids = torch.tensor([tokenizer("Tom has 3 pens")["input_ids"]])
    untrained = AutoModelForCausalLM.from_pretrained(base / "student")
    assert torch.allclose(again(ids).logits, student(ids).logits, atol=1e-5)
    assert not torch.allclose(again(ids).logits, untrained(ids).logits, atol=1e-3)
    size = sum(path.stat().st_size for path in (tmp_path / "run" / "adapters").glob("*.safetensors"))
    assert size < sum(path.stat().st_size for path in (base / "student").glob("*.safetensors"))


def test_without_lora_there_is_no_adapter_folder_and_the_student_generates_with_its_cache(tmp_path):
    config = make_config(tmp_path, student__gradient_checkpointing=True)
    context = make_context(config)
    trainer = pipeline.make_trainer(config, context)
    pipeline.train(config, trainer)
    assert not trainer.model.policy.config.use_cache  # Trainer has switched it off
    folder = pipeline.export(config, trainer, context.tokenizer)
    assert not (tmp_path / "adapters").exists()
    assert AutoConfig.from_pretrained(folder).use_cache is True


def test_quantization_settings_and_what_they_need():
    assert quantization_config("4bit").bnb_4bit_quant_type == "nf4"
    assert quantization_config("8bit").load_in_8bit
    with pytest.raises(ConfigError, match=r"set student\.lora too"):
        make_config("unused", student__quantization="4bit")
    with pytest.raises(ConfigError, match="for a teacher of your own"):
        make_config("unused", teacher__quantization="4bit")
    with pytest.raises(ConfigError, match="exclude each other"):
        make_config("unused", teacher__quantization="4bit", teacher__model="t", teacher__sharded=True)
    with pytest.raises(ConfigError, match="the precision is the server's"):
        make_config("unused", teacher__quantization="8bit", teacher__model="t", teacher__placement="remote")
