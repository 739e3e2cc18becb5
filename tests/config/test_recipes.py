"""The packaged recipes for real models: each says everything, and its comment the memory that the doctor estimates."""

import re
from pathlib import Path

import pytest
from transformers import Qwen2Config, Qwen3Config

from reward_models import RewardSpec, validate
from rl_distill.config import load_config, teachers_of
from rl_distill.config.command_line import config_path, parse
from rl_distill.doctor import memory
from rl_distill.doctor.from_config import plan_of

ROOT = Path(__file__).parents[2]
SHAPES = {  # of the hub's config.json: width, MLP, layers, heads, key-value heads, vocabulary, tied
    "Qwen/Qwen2.5-0.5B-Instruct": (Qwen2Config, 896, 4864, 24, 14, 2, 151936, True),
    "Qwen/Qwen2.5-1.5B-Instruct": (Qwen2Config, 1536, 8960, 28, 12, 2, 151936, True),
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": (Qwen2Config, 1536, 8960, 28, 12, 2, 151936, True),
    "Qwen/Qwen2.5-7B-Instruct": (Qwen2Config, 3584, 18944, 28, 28, 4, 152064, False),
    "Qwen/Qwen2.5-Coder-7B-Instruct": (Qwen2Config, 3584, 18944, 28, 28, 4, 152064, False),
    "Qwen/Qwen2.5-Math-7B-Instruct": (Qwen2Config, 3584, 18944, 28, 28, 4, 152064, False),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": (Qwen2Config, 1536, 8960, 28, 12, 2, 151936, False),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": (Qwen2Config, 3584, 18944, 28, 28, 4, 152064, False),
    "Qwen/Qwen3-0.6B": (Qwen3Config, 1024, 3072, 28, 16, 8, 151936, True),
    "Qwen/Qwen3-8B": (Qwen3Config, 4096, 12288, 36, 32, 8, 151936, False),
}
NAMES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
RECIPES = {  # GB of the GPU it is for
    "gsm8k_0_5b_24gb": 24,
    "gsm8k_1_5b_80gb": 80,
    "humaneval_1_5b": 80,
    "r1_format": 80,
    "qwen3_0_6b": 48,
    "triviaqa_1_5b": 80,
    "multi_domain": 80,
}


def shape(model):
    cls, *sizes, vocab, tied = SHAPES[model]
    head = {"head_dim": 128} if cls is Qwen3Config else {}
    settings = dict(zip(NAMES, sizes, strict=True)) | head
    return memory.Shape.of(cls(**settings, vocab_size=vocab, tie_word_embeddings=tied))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_everything_and_its_rewards_are_there(name, tmp_path):
    config = parse(["--config", name, "--output_dir", str(tmp_path)])
    assert config.demo is None
    assert config.chosen == {}
    assert "ppo.learning_rate" not in config.chosen
    validate([RewardSpec.from_config(entry) for entry in config.rewards])
    assert "Not run on a GPU" in (ROOT / "configs" / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", RECIPES)
def test_the_memory_beside_a_recipe_is_the_doctors(name):
    config = load_config(config_path(name))
    teacher = shape(teachers_of(config)[0].model)
    parts = memory.student_gpu(shape(config.student.model), teacher, plan_of(config))
    told = float(re.search(r"estimate: ([\d.]+) GiB", config_path(name).read_text())[1])
    assert told == pytest.approx(parts["peak"] / memory.GIB, abs=0.06)
    assert told < 0.93 * RECIPES[name]


def test_two_teachers_side_by_side_cost_twice_as_much():
    config = load_config(config_path("multi_domain"))
    teacher = shape("Qwen/Qwen2.5-Coder-7B-Instruct")
    parts = memory.student_gpu(shape(config.student.model), teacher, plan_of(config))
    assert parts["teacher"] == 2 * 2 * 7_615_616_512  # two of them, two bytes a weight


def test_shapes_are_those_of_the_models():
    assert shape("Qwen/Qwen2.5-0.5B-Instruct").parameters == 494_032_768  # as the model card's safetensors say
    assert shape("Qwen/Qwen2.5-7B-Instruct").parameters == 7_615_616_512
