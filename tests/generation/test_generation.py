"""Sampling: a completion depends on its prompt and seed alone, and agrees with transformers' own generation."""

import pytest
import torch

from rl_distill.generation.sampling import Sampling, StopStrings, choose, generate, row_uniforms
from rl_distill.types import Finish

PROMPTS = ["Q: Tom has 4 pens.", "def f(x):\n", "Q: Mia has 12 coins. Mia loses 3. How many coins does Mia have?\nA:\n"]


@pytest.fixture
def sample(tokenizer, make_policy):
    model = make_policy()

    def run(texts, sampling, **kwargs):
        ids = [tokenizer(text)["input_ids"] for text in texts]
        options = {"eos_token_ids": [tokenizer.eos_token_id], "pad_token_id": tokenizer.pad_token_id} | kwargs
        return generate(model, ids, sampling, **options)

    run.model = model
    return run


def test_greedy_generation_equals_transformers(sample, tokenizer):
    ours = sample(PROMPTS, Sampling(12, temperature=0.0))
    for text, generated in zip(PROMPTS, ours, strict=True):
        inputs = tokenizer(text, return_tensors="pt")
        theirs = sample.model.generate(
            inputs.input_ids, attention_mask=inputs.attention_mask, max_new_tokens=12, do_sample=False
        )
        assert generated.token_ids == theirs[0, inputs.input_ids.shape[1] :].tolist()


def test_a_completion_is_the_same_alone_and_in_any_batch(sample):
    sampling = Sampling(16, temperature=1.0)
    together = sample(PROMPTS, sampling, seeds=[11, 12, 13])
    for row, text in enumerate(PROMPTS):
        assert sample([text], sampling, seeds=[11 + row]) == [together[row]]
    assert sample(PROMPTS, sampling, seeds=[11, 12, 13], batch_size=2) == together
    assert sample(PROMPTS[::-1], sampling, seeds=[13, 12, 11]) == together[::-1]


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_prompts_of_a_group_are_read_once_and_say_what_each_alone_says(sample, top_p):
    sampling, read = Sampling(16, temperature=1.0, top_p=top_p), []
    texts, seeds = [text for text in PROMPTS for _ in range(3)], list(range(20, 29))
    alone = [sample([text], sampling, seeds=[seed])[0] for text, seed in zip(texts, seeds, strict=True)]
    hook = sample.model.get_input_embeddings().register_forward_hook(lambda m, args, out: read.append(args[0].shape))
    together = sample(texts, sampling, seeds=seeds)
    hook.remove()
    assert [generated.token_ids for generated in together] == [generated.token_ids for generated in alone]
    assert [generated.finish for generated in together] == [generated.finish for generated in alone]
    assert read[0][0] == 3
    assert read[1][0] > 3
    assert len({tuple(generated.token_ids) for generated in together}) == 9


def test_sampling_does_not_touch_torchs_random_state(sample):
    before = torch.random.get_rng_state()
    sample(PROMPTS, Sampling(4), seeds=[1, 2, 3])
    assert torch.equal(before, torch.random.get_rng_state())


def test_finished_rows_stop_at_eos_inclusive_and_the_others_at_the_limit(sample, tokenizer):
    greedy = sample(PROMPTS, Sampling(10, temperature=0.0))
    ending = greedy[0].token_ids[3]  # call the first prompt's fourth token EOS
    results = sample(PROMPTS, Sampling(10, temperature=0.0), eos_token_ids=[ending])
    expected = greedy[0].token_ids[: greedy[0].token_ids.index(ending) + 1]
    assert results[0].token_ids == expected
    assert results[0].finish is Finish.STOP
    for full, cut in zip(greedy[1:], results[1:], strict=True):
        stopped = ending in full.token_ids
        assert cut.finish is (Finish.STOP if stopped else Finish.LENGTH)
        assert len(cut.token_ids) == (full.token_ids.index(ending) + 1 if stopped else 10)


def test_choose_inverts_the_distribution_function():
    logits_BV = torch.log(torch.tensor([[0.2, 0.5, 0.3]])).repeat(5, 1)
    uniforms_B = torch.tensor([0.0, 0.19, 0.21, 0.69, 0.999999])
    assert choose(logits_BV, Sampling(1), uniforms_B)[0].tolist() == [0, 0, 1, 1, 2]


def test_choose_never_takes_a_token_outside_top_p_nor_one_of_probability_zero():
    logits_BV = torch.log(torch.tensor([[0.5, 0.0, 0.3, 0.2]])).repeat(1000, 1)
    uniforms_B = row_uniforms([7], 1000)[0]
    assert set(choose(logits_BV, Sampling(1, top_p=0.8), uniforms_B)[0].tolist()) == {0, 2}
    assert set(choose(logits_BV, Sampling(1), uniforms_B)[0].tolist()) == {0, 2, 3}


def test_sampled_frequencies_follow_the_probabilities():
    logits_BV = torch.log(torch.tensor([[0.6, 0.3, 0.1]])).repeat(20_000, 1)
    counts = torch.bincount(choose(logits_BV, Sampling(1), row_uniforms([3], 20_000)[0])[0], minlength=3) / 20_000
    assert torch.allclose(counts, torch.tensor([0.6, 0.3, 0.1]), atol=0.015)


def test_padding_rows_of_the_vocabulary_are_never_sampled(sample, tokenizer):
    allowed = 40
    for generated in sample(PROMPTS, Sampling(20), seeds=[1, 2, 3], vocab_size=allowed):
        assert max(generated.token_ids) < allowed


def test_an_empty_prompt_is_refused(sample):
    with pytest.raises(ValueError, match="empty prompt"):
        generate(sample.model, [[]], Sampling(2), eos_token_ids=[1], pad_token_id=0)


def test_a_stop_string_ends_a_completion_with_the_token_that_completes_it(sample, tokenizer):
    full = sample(PROMPTS, Sampling(20), seeds=[1, 2, 3])
    text = tokenizer.decode(full[0].token_ids[:8])[-3:]
    stopped = sample(PROMPTS, Sampling(20), seeds=[1, 2, 3], stop=StopStrings(tokenizer, [text, "never appears"]))
    assert stopped[0].finish is Finish.STOP
    assert stopped[0].token_ids == full[0].token_ids[: len(stopped[0].token_ids)]
    assert text in tokenizer.decode(stopped[0].token_ids)
    assert text not in tokenizer.decode(stopped[0].token_ids[:-1])


def test_every_eos_id_of_the_generation_config_ends_a_completion(sample):
    full = sample(PROMPTS, Sampling(20), seeds=[1, 2, 3])
    other = full[1].token_ids[4]
    sample.model.generation_config.eos_token_id = [sample.model.generation_config.eos_token_id, other]
    cut = sample(PROMPTS, Sampling(20), seeds=[1, 2, 3])
    assert cut[1].token_ids == full[1].token_ids[: full[1].token_ids.index(other) + 1]
    assert cut[1].finish is Finish.STOP


def test_a_small_model_decodes_on_one_thread_and_gives_the_others_back(sample):
    before, seen = torch.get_num_threads(), []
    sample.model.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    torch.set_num_threads(2)
    try:
        sample(PROMPTS, Sampling(2))
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_large_vocabulary_is_searched_in_blocks_with_the_same_result():
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(64, 5000, generator=generator)).double()
    logits[:, ::3] = -torch.inf
    logits[:, 4000:] = -torch.inf
    uniforms = torch.rand(64, generator=generator)
    uniforms[0], uniforms[1] = 0.0, 1 - 2**-24
    chosen, _ = choose(logits, Sampling(1), uniforms)
    probs = logits.softmax(-1)
    cumulative = probs.cumsum(-1)
    for row, token in enumerate(chosen.tolist()):
        assert probs[row, token] > 0
        below = 0.0 if token == 0 else float(cumulative[row, token - 1])
        assert below - 1e-6 <= float(uniforms[row]) <= float(cumulative[row, token]) + 1e-6


@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_draws_from_a_large_vocabulary_follow_the_distribution(top_p):
    logits = torch.full((20_000, 3000), -torch.inf)
    logits[:, [0, 511, 512, 1700, 2999]] = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05]).log()
    uniforms = (torch.arange(20_000) + 0.5) / 20_000
    shares = choose(logits, Sampling(1, top_p=top_p), uniforms)[0].bincount(minlength=3000) / 20_000
    expected = [0.4, 0.3, 0.15, 0.1, 0.05] if top_p == 1 else [4 / 7, 3 / 7, 0, 0, 0]
    torch.testing.assert_close(shares[[0, 511, 512, 1700, 2999]], torch.tensor(expected), atol=2e-4, rtol=0)


def test_top_p_tells_the_log_probability_under_the_cut_distribution_and_the_whole_one_tells_none(sample):
    logits = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05]).log().expand(3, 5)
    tokens, logprobs = choose(logits, Sampling(1, top_p=0.8), torch.tensor([0.1, 0.5, 0.99]))
    assert tokens.tolist() == [0, 1, 2]  # 0.4 + 0.3 + 0.15 is the smallest set that holds 0.8
    assert logprobs.exp().tolist() == pytest.approx([0.4 / 0.85, 0.3 / 0.85, 0.15 / 0.85])
    found = sample(PROMPTS, Sampling(9, top_p=0.5), seeds=[1, 2, 3])
    assert [len(item.logprobs) for item in found] == [len(item.token_ids) for item in found]
    assert all(value < 0 for item in found for value in item.logprobs)
    for whole in (Sampling(9), Sampling(9, temperature=0.0, top_p=0.5)):
        assert all(item.logprobs is None for item in sample(PROMPTS, whole, seeds=[1, 2, 3]))
