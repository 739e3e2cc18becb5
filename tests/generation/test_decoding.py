"""The decoder with a cache of fixed size gives the logits of the plain one; a bf16 copy tells what it drew from."""

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from rl_distill.config import ConfigError
from rl_distill.generation import decoding, sampling
from rl_distill.generation.decoding import GraphedDecoder, PlainDecoder, can_be_graphed, make_decoder
from rl_distill.generation.policy_copy import PolicyCopy
from rl_distill.generation.sampling import Sampling, TransformersEngine, choose, generate
from tests.tiny_run import make_config, make_trainer

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 97}


def make(family, **more):
    torch.manual_seed(0)
    if family == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=97)).eval()
    config, model = {
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "llama": (LlamaConfig, LlamaForCausalLM),
        "mistral": (MistralConfig, MistralForCausalLM),
    }[family]
    return model(config(**SIZES, num_key_value_heads=2, **more)).eval()


def fixed_size(model, max_new_tokens, **_):
    return GraphedDecoder(model, max_new_tokens, capture=False)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["qwen2", "llama", "gpt2"])
def test_logits_are_those_of_the_plain_decoder_as_rows_leave(family, attention, monkeypatch):
    monkeypatch.setattr(decoding, "MIN_GRAPH_STEPS", 2)
    model = make(family)
    model.set_attn_implementation(attention)
    assert can_be_graphed(model)
    ids = torch.tensor([[0, 0, 5, 6], [1, 2, 3, 4]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    rows = torch.tensor([0, 0, 1, 1, 1, 0, 1, 1, 0])
    plain, fixed = PlainDecoder(model), GraphedDecoder(model, 12, capture=False)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        found, expected = fixed.prefill(ids, mask, rows), plain.prefill(ids, mask, rows)
        torch.testing.assert_close(found, expected)
        alive = len(rows)
        for keep in (None, [0, 2, 3, 5, 8], None, [1, 4], None, [1], None):  # two of nine: below a quarter
            if keep is not None:
                plain.keep(torch.tensor(keep))
                fixed.keep(torch.tensor(keep))
                alive = len(keep)
            tokens = torch.randint(97, (alive,), generator=draw)
            torch.testing.assert_close(fixed.step(tokens), plain.step(tokens), rtol=1e-4, atol=1e-5)
    assert len(fixed.tokens_S1) == 2  # the slots were compacted once: one of two is no less than a quarter


def test_attention_by_groups_is_attention_with_repeated_keys():
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(3, heads, n, 8, generator=draw) for heads, n in ((6, 1), (2, 5), (2, 5)))
    mask = torch.zeros(3, 1, 1, 5)
    mask[1, 0, 0, :2] = torch.finfo(torch.float32).min
    found, _ = decoding.grouped_attention(None, query, key, value, mask, scaling=0.3)
    for row in range(3):
        for head in range(6):
            of_group = head // 3
            scores = [0.3 * float(query[row, head, 0] @ key[row, of_group, place]) for place in range(5)]
            scores = scores[2:] if row == 1 else scores
            weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
            expected = sum(w * v for w, v in zip(weights, value[row, of_group, -len(scores) :].double(), strict=True))
            torch.testing.assert_close(found[row, 0, head].double(), expected, rtol=1e-5, atol=1e-6)


def test_attention_is_as_before_afterwards():
    model = make("qwen2")
    with decoding.attention_by_groups(model):
        assert {layer.self_attn.config._attn_implementation for layer in model.model.layers} == {decoding.GROUPED}
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_completions_are_those_of_the_plain_decoder(monkeypatch, temperature):
    monkeypatch.setattr(decoding, "MIN_GRAPH_STEPS", 2)
    model = make("qwen2", initializer_range=0.3)
    prompts = [[5, 6, 7], [8], [5, 6, 7], [9, 10, 11, 12, 13], [14, 15], [8]]

    def completions():
        return generate(
            model,
            prompts,
            Sampling(20, temperature),
            eos_token_ids=[3, 4, 50, 51, 52, 53],
            pad_token_id=0,
            batch_size=6,
        )

    expected = completions()
    monkeypatch.setattr(sampling, "make_decoder", fixed_size)
    assert completions() == expected
    assert len({len(completion.token_ids) for completion in expected}) > 1


def test_models_without_a_step_of_fixed_shapes_decode_plainly():
    assert not can_be_graphed(make("mistral", sliding_window=8))
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    assert not can_be_graphed(make("llama", rope_parameters=rope))
    assert isinstance(make_decoder(make("qwen2"), 100), PlainDecoder)  # no CUDA device


def test_a_copy_in_bf16_tells_the_log_probabilities_of_its_own_distribution(tokenizer, make_policy):
    policy = make_policy(3)
    engine = TransformersEngine(tokenizer, 4, is_copy=True)
    prompts = [tokenizer(text)["input_ids"] for text in ("a", "Tom has 3 apples")]
    for _ in range(2):  # the second time with weights that have moved
        completions = engine.generate(policy, prompts, Sampling(12), [1, 2])
        narrow = make_policy(3).to(torch.bfloat16)
        narrow.load_state_dict({name: value.bfloat16() for name, value in policy.state_dict().items()})
        for prompt, completion in zip(prompts, completions, strict=True):
            with torch.no_grad():
                ids = torch.tensor([prompt + completion.token_ids])
                logits = narrow(input_ids=ids).logits[0, len(prompt) - 1 : -1, : len(tokenizer)]
            expected = logits.float().log_softmax(-1).gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
            assert completion.logprobs == pytest.approx(expected.tolist(), abs=0.05)
        assert policy.dtype == torch.float32
        with torch.no_grad():
            for weight in policy.parameters():
                weight.mul_(1.1)


def test_the_copy_keeps_tied_weights_and_addresses(make_policy):
    policy, copied = make_policy(0), PolicyCopy(torch.bfloat16)
    first = copied.of(policy)
    addresses = [weight.data_ptr() for weight in first.parameters()]
    assert copied.of(policy) is first
    assert [w.data_ptr() for w in first.parameters()] == addresses
    assert (first.lm_head.weight is first.model.embed_tokens.weight) == policy.config.tie_word_embeddings


def test_told_log_probabilities_are_those_of_the_tempered_distribution():
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    tokens, told = choose(logits, Sampling(1, 2.0, is_approximate=True), torch.tensor([0.99]))
    weights = [2.718281828**x for x in (0.5, 1.0, 2.0)]
    assert tokens.tolist() == [2]
    assert told.exp().item() == pytest.approx(weights[2] / sum(weights))


def test_a_run_that_samples_in_bf16_is_corrected_and_trains(tmp_path):
    settings = {"generation__dtype": "bfloat16", "anchor__schedule": "fixed"}
    corrected, free = (
        make_trainer(tmp_path / str(cap), **settings, generation__sampler_weight_cap=cap) for cap in (2.0, 1e-30)
    )
    rollout = corrected.collector.collect(corrected.model, 0)
    told = rollout.states.sampler_logprobs_N
    weights = (rollout.states.logprobs_N - told).exp().clamp(max=2.0)
    assert 0 < rollout.extra_metrics["sampler/logprob_difference"] < 0.05
    assert rollout.extra_metrics["sampler/weight"] == pytest.approx(weights.mean().item())
    nothing = free.collector.collect(free.model, 0)  # the same draws, weighed by next to nothing
    assert torch.equal(nothing.states.sampler_logprobs_N, told)
    assert nothing.advantages_N.abs().max() < 1e-20
    corrected.train()


@pytest.mark.parametrize(
    "settings",
    [{"generation__engine": "vllm_colocate"}, {"student__quantization": "4bit", "student__lora": {"r": 4}}],
)
def test_a_dtype_that_nothing_would_read_is_refused(tmp_path, settings):
    with pytest.raises(ConfigError, match=r"generation\.dtype"):
        make_config(tmp_path, generation__dtype="bfloat16", **settings)
