"""Shared by the tests: a tiny tokenizer and model made here, and quiet libraries."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import random
import sys

import pytest
from hypothesis import settings

# The same examples each time; HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(autouse=True)
def _seeded():
    """What a test draws from global generators does not depend on the tests before it."""
    random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def tokenizer():
    from rl_distill.demo.problems import make_problems
    from rl_distill.demo.tiny import make_tokenizer

    return make_tokenizer([p.prompt + p.solution for p in make_problems("train", 300, 0)], 320)


@pytest.fixture
def make_policy(tokenizer):
    """make_policy(seed, **shape) -> a small random Qwen2 in float32."""
    from rl_distill.config import TinyModelConfig
    from rl_distill.demo.tiny import make_model

    def make(seed: int = 0, hidden_size: int = 32, num_layers: int = 2):
        return make_model(TinyModelConfig(hidden_size, 64, num_layers, 4), tokenizer, seed).eval()

    return make
