"""Every model family of rl_distill/models/families.py goes the whole way, as a tiny random model.

Sampling with rows that end apart says what unbatched greedy decoding without a cache says; a PPO step, a checkpoint,
the export and loading the export again.
"""

from __future__ import annotations

import pytest
import torch

from rl_distill import pipeline
from rl_distill.config import ConfigError
from rl_distill.demo.problems import make_problems
from rl_distill.generation.sampling import Sampling, generate
from rl_distill.models.families import FAMILIES, tiny_config
from rl_distill.models.heads import check_head
from rl_distill.models.loading import auto_class, load
from rl_distill.ppo import checkpoint
from rl_distill.run_setup import RunContext
from rl_distill.teachers.colocated import make_teacher
from rl_distill.types import Splits
from tests.tiny_run import make_config

SUPPORTED = [name for name, family in FAMILIES.items() if not family.refused]
PROMPTS = [[5, 6, 7], [9], [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21], [30, 31]]
NUM_TOKENS = 14


def make_model(name, vocab_size, seed=0):
    torch.manual_seed(seed)
    config = tiny_config(name, vocab_size)
    model = auto_class(config).from_config(config).eval()
    for parameter in model.parameters():  # random models of the usual small range say the same token over and over
        if parameter.ndim >= 2:
            parameter.data.mul_(6.0)
    return model


@torch.no_grad()
def greedy_without_cache(model, prompt):
    ids = list(prompt)
    for _ in range(NUM_TOKENS):
        ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def ended(tokens, eos):
    return tokens[: tokens.index(eos) + 1] if eos in tokens else tokens


def eos_that_ends_rows_apart(rows):
    return max({token for row in rows for token in row}, key=lambda eos: len({len(ended(row, eos)) for row in rows}))


@pytest.mark.parametrize("name", SUPPORTED)
def test_rows_that_end_apart_read_as_each_alone_without_a_cache(name):
    model = make_model(name, 64)
    rows = [greedy_without_cache(model, prompt) for prompt in PROMPTS]
    eos = eos_that_ends_rows_apart(rows)
    expected = [ended(row, eos) for row in rows]
    assert len({len(row) for row in expected}) >= 2, "every row ends at the same token"
    model.generation_config.eos_token_id = None
    for times in (1, 2):  # repeated prompts are read once, and the cache is repeated
        sampled = generate(model, PROMPTS * times, Sampling(NUM_TOKENS, 0.0), eos_token_ids=[eos], pad_token_id=0)
        assert [item.token_ids for item in sampled] == expected * times


def make_context(name, config, tokenizer):
    train = make_problems("train", 40, 0)
    student, teacher = (make_model(name, len(tokenizer), seed) for seed in (1, 2))
    splits = Splits(cold_start=[], train=train, validation=train[:2], test=train[:2])
    return RunContext(splits, make_teacher(config, teacher, tokenizer), student, tokenizer, {}, 0)


@pytest.mark.parametrize("name", SUPPORTED)
def test_a_ppo_step_a_checkpoint_and_the_export(name, tmp_path, tokenizer):
    config = make_config(
        tmp_path, ppo__num_steps=1, checkpoint__every_steps=1, anchor__schedule="fixed", ppo__stop_at_kl=None
    )
    context = make_context(name, config, tokenizer)
    before = {key: value.clone() for key, value in context.student.state_dict().items()}
    trainer = pipeline.make_trainer(config, context)
    assert pipeline.train(config, trainer)
    (saved,) = checkpoint.folders(tmp_path)
    assert checkpoint.is_complete(saved)
    trained = {key: value.clone() for key, value in trainer.model.policy.state_dict().items()}
    assert any(not torch.equal(value, trained[key]) for key, value in before.items())
    reloaded = load(pipeline.export(config, trainer, tokenizer))[0].eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(reloaded(ids).logits, trainer.model.policy.eval()(ids).logits)
        checkpoint.load_weights(trainer.model, saved)
        torch.testing.assert_close(reloaded(ids).logits, trainer.model.policy.eval()(ids).logits)


def test_what_is_not_supported_is_refused_with_the_reason():
    refused = [name for name, family in FAMILIES.items() if family.refused]
    assert refused == ["Granite"]
    with pytest.raises(ConfigError, match=r"student: granite scales or caps its logits .*; such models are not supp"):
        check_head(make_model("Granite", 64), "student", bias_allowed=True)


def test_what_reads_images_is_not_trained():
    from rl_distill.models.actor_critic import freeze_other_towers

    model = make_model("Gemma 3, with images", 64)
    freeze_other_towers(model)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    model(torch.tensor([[5, 6, 7]])).logits.sum().backward()
    assert sorted(trained) == sorted(name for name, p in model.named_parameters() if p.grad is not None)
    assert not any("vision" in name or "projector" in name for name in trained)
