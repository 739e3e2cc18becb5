"""Settings that follow a pretrained student: rates by size, length, chat, micro-batch, group means; and who wins."""

import json

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    Qwen2Config,
    Qwen3Config,
)

from rl_distill.config import RunConfig, load_config
from rl_distill.config.model_facts import ModelFacts, count_parameters, read_facts
from rl_distill.config.own_defaults import PPO_RATES, SUPERVISED_RATES, learning_rate
from rl_distill.config.reading import parse_override
from rl_distill.startup.chosen import keep_settings, tell_chosen

SMOLLM2 = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}


@pytest.fixture
def student(tmp_path):
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SMOLLM2))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    return folder


def own(student, **settings):
    models = {"demo": None, "student.model": str(student), "teacher.model": str(student), "data.train": "x.jsonl"}
    return load_config(None, models | {name.replace("__", "."): value for name, value in settings.items()})


SHAPE = {"vocab_size": 8000, "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8}


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SHAPE, intermediate_size=700, num_key_value_heads=2),
        LlamaConfig(**SHAPE, intermediate_size=700, num_key_value_heads=8, tie_word_embeddings=True),
        Qwen2Config(**SHAPE, intermediate_size=700, num_key_value_heads=4),
        Qwen3Config(**SHAPE, intermediate_size=700, num_key_value_heads=4, head_dim=64),
        Gemma3TextConfig(**SHAPE, intermediate_size=700, num_key_value_heads=1, head_dim=32),
        GPT2Config(vocab_size=8000, n_embd=256, n_layer=6, n_head=8),
        MixtralConfig(**SHAPE, intermediate_size=300, num_key_value_heads=2, num_local_experts=4),
    ],
    ids=lambda config: config.model_type,
)
def test_parameters_are_counted_from_the_file_as_torch_counts_them(config, tmp_path):
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    truth = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    assert read_facts(str(tmp_path)).parameters == pytest.approx(truth, rel=0.04)


def test_a_real_model_is_counted_right():
    assert count_parameters(SMOLLM2) == pytest.approx(134.5e6, rel=0.001)  # its card: 134,515,008


def test_what_cannot_be_read_is_unknown(tmp_path):
    assert read_facts(str(tmp_path)) == ModelFacts()
    (tmp_path / "config.json").write_text("{broken")
    assert read_facts(str(tmp_path)) == ModelFacts()
    assert count_parameters({"hidden_size": 3}) is None


def test_the_facts_of_an_adapter_are_its_bases(student, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(student)}))
    facts = read_facts(str(folder))
    assert (facts.is_adapter, facts.positions, facts.has_chat_template) == (True, 8192, True)


@pytest.mark.parametrize(
    ("millions", "rates", "lora", "expected"),
    [
        (0.3, PPO_RATES, False, 7e-4),  # the demo's
        (135, PPO_RATES, False, 4e-6),
        (494, PPO_RATES, False, 1e-6),
        (7600, PPO_RATES, False, 1e-6),
        (494, PPO_RATES, True, 1e-5),
        (7600, PPO_RATES, True, 1e-5),
        (0.3, PPO_RATES, True, 1e-3),
        (7600, SUPERVISED_RATES, False, 2e-5),
        (7600, SUPERVISED_RATES, True, 2e-4),
        (0.3, SUPERVISED_RATES, True, 3e-3),  # LoRA is never below full training
    ],
)
def test_learning_rates_by_size(millions, rates, lora, expected):
    assert learning_rate(ModelFacts(round(millions * 1e6)), rates, lora) == pytest.approx(expected)


def test_a_model_of_unknown_size_is_taken_for_a_large_one():
    assert learning_rate(ModelFacts(), PPO_RATES, lora=False) == 1e-6


def test_a_pretrained_student_is_not_trained_as_the_demo_is(student):
    config = own(student)
    ppo = config.ppo
    assert (ppo.learning_rate, ppo.advantage, ppo.group_size, ppo.micro_batch_size) == (4e-6, "group_mean", 8, 8)
    assert (config.generation.max_completion_length, config.data.chat) == (512, True)
    assert "134 M" in config.chosen["ppo.learning_rate"] or "135 M" in config.chosen["ppo.learning_rate"]


def test_lora_takes_ten_times_the_rate(student):
    assert own(student, student__lora={}).ppo.learning_rate == 4e-5


def test_what_is_stated_wins_and_is_not_called_chosen(student):
    stated = {"ppo.learning_rate": 3e-7, "generation.max_completion_length": 99, "data.chat": False}
    stated |= {"ppo.advantage": "gae", "ppo.group_size": 2, "ppo.micro_batch_size": 5}
    config = own(student, **{name.replace(".", "__"): value for name, value in stated.items()})
    assert config.ppo.learning_rate == 3e-7
    assert config.generation.max_completion_length == 99
    assert not config.data.chat
    assert (config.ppo.advantage, config.ppo.group_size, config.ppo.micro_batch_size) == ("gae", 2, 5)
    assert set(config.chosen) == {"ppo.value_learning_rate"}


def test_what_is_stated_as_the_schemas_default_wins_too(student):
    config = own(student, ppo__learning_rate=7e-4, generation__max_completion_length=48)
    assert (config.ppo.learning_rate, config.generation.max_completion_length) == (7e-4, 48)


def test_words_of_a_command_line_count_as_stated(student):
    words = {"ppo.learning_rate": "2e-6", "student.lora": "{r: 4}", "data.prompt_template": "{q}: a: b"}
    config = own(student, **{name: parse_override(text) for name, text in words.items()})
    assert (config.ppo.learning_rate, config.student.lora.r) == (2e-6, 4)
    assert "ppo.learning_rate" not in config.chosen


@pytest.mark.parametrize("name", ["critic", "critic_warmup_steps", "value_learning_rate", "lam"])
def test_whoever_speaks_of_a_critic_gets_one(student, name):
    value = {"critic": "shared", "critic_warmup_steps": 3, "value_learning_rate": 1e-4, "lam": 0.9}[name]
    config = own(student, **{f"ppo__{name}": value})
    assert (config.ppo.advantage, config.ppo.group_size) == ("gae", 1)


@pytest.mark.parametrize(("critic", "expected"), [("teacher_informed", 5e-4), ("separate", 4e-5)])
def test_a_critics_rate_follows_the_size(student, critic, expected):
    assert own(student, ppo__critic=critic).ppo.value_learning_rate == pytest.approx(expected)


@pytest.mark.parametrize(("width", "expected"), [(48, 3e-3), (96, 3e-3), (896, 3e-4), (4096, 7e-5)])
def test_a_value_heads_rate_falls_as_the_width_grows(student, width, expected):
    (student / "config.json").write_text(json.dumps(SMOLLM2 | {"hidden_size": width}))
    assert own(student, ppo__critic="shared").ppo.value_learning_rate == pytest.approx(expected)  # .003 x 96 / width


@pytest.mark.parametrize(("batch", "size"), [(128, 8), (12, 6), (7, 7)])
def test_groups_divide_the_batch(student, batch, size):
    config = own(student, ppo__batch_size=batch, ppo__num_minibatches=1)
    assert (config.ppo.advantage, config.ppo.group_size) == ("group_mean", size)


@pytest.mark.parametrize("settings", [{"ppo__batch_size": 11}, {"ppo__group_size": 1}])
def test_without_room_for_groups_there_is_a_critic(student, settings):
    config = own(student, ppo__num_minibatches=1, **settings)
    assert (config.ppo.advantage, config.ppo.group_size) == ("gae", 1)


@pytest.mark.parametrize(("positions", "prompt", "expected"), [(256, None, 128), (256, 200, 56), (8192, 8000, 192)])
def test_answers_fit_into_the_positions(student, positions, prompt, expected):
    (student / "config.json").write_text(json.dumps(SMOLLM2 | {"max_position_embeddings": positions}))
    assert own(student, data__max_prompt_length=prompt).generation.max_completion_length == expected


def test_answers_fit_into_the_teachers_positions_too(student, tmp_path):
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    (teacher / "config.json").write_text(json.dumps(SMOLLM2 | {"max_position_embeddings": 100}))
    assert own(student, teacher__model=str(teacher)).generation.max_completion_length == 50


def test_a_tokenizer_without_a_template_gets_plain_prompts(student):
    (student / "tokenizer_config.json").write_text("{}")
    assert not own(student).data.chat
    (student / "chat_template.jinja").write_text("{{ messages }}")
    assert own(student).data.chat


def test_supervised_stages_follow_the_size_too(student):
    config = own(student, warm_up={}, distill={"learning_rate": 1e-5})
    assert (config.warm_up.learning_rate, config.distill.learning_rate) == (6e-5, 1e-5)


def test_the_demo_is_untouched():
    assert load_config(None) == RunConfig()
    assert load_config(None).chosen == {}


def test_the_choices_are_told_and_repeat_the_run(student, tmp_path, capsys):
    config = own(student, output_dir=str(tmp_path / "run"), resume_from_checkpoint="latest")
    tell_chosen(config)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 + len(config.chosen)
    assert any(line.split()[:2] == ["ppo.learning_rate", "4e-06:"] for line in said)
    again = load_config(keep_settings(config))
    assert again.resume_from_checkpoint is None
    assert (again.chosen, again.ppo, again.generation, again.data) == (
        config.chosen, config.ppo, config.generation, config.data,
    )  # fmt: skip
