"""vLLM behind the function that samples rollouts, against an engine that speaks as TRL's VLLMGeneration does."""

import inspect

import pytest
import torch

from rl_distill.config import ConfigError
from rl_distill.generation import vllm
from rl_distill.generation.sampling import Sampling, StopStrings
from rl_distill.types import Finish
from tests.tiny_run import make_config, make_trainer


class FakeBackend:
    """Returns what VLLMGeneration documents: ids, and one list of log-probabilities per token."""

    temperature = 1.0

    def __init__(self, completions, logprob=-1.0):
        self.completions, self.logprob, self.calls, self.synced = completions, logprob, [], 0

    def sync_weights(self):
        self.synced += 1

    def generate(self, prompts, images, num_generations):
        self.calls.append((prompts, images, num_generations, self.temperature))
        ids = [self.completions[row % len(self.completions)] for row in range(len(prompts))]
        return prompts, ids, [[[self.logprob]] * len(row) for row in ids], [[[token] for token in row] for row in ids]


def test_completions_end_by_eos_by_stop_string_or_by_length(tokenizer):
    stop = StopStrings(tokenizer, ["."])
    dot = tokenizer(" pens.")["input_ids"]
    backend = FakeBackend([[9, 8, 1], [9, 8, 7, 6], dot, [9, 8]])  # the last: no room left in the context window
    engine = vllm.VLLMEngine(backend, [1], max_tokens=4, stop=stop)
    found = engine.generate(None, [[5], [6], [7], [8]], Sampling(4, temperature=0.7), seeds=[0, 1, 2, 3])
    assert [item.finish for item in found] == [Finish.STOP, Finish.LENGTH, Finish.STOP, Finish.LENGTH]
    assert found[0].token_ids == [9, 8, 1]
    assert found[0].logprobs == [-1.0, -1.0, -1.0]
    assert backend.calls == [([[5], [6], [7], [8]], None, 1, 0.7)]
    assert backend.synced == 1


def test_importance_weights_scale_the_advantages_and_are_capped(tmp_path):
    trainer = make_trainer(tmp_path, generation__sampler_weight_cap=2.0, anchor__schedule="fixed")
    plain = trainer.collector.collect(trainer.model, 0)
    ids = [completion.token_ids for completion in plain.completions]

    def with_sampler(shift):
        backend = FakeBackend(ids)
        shifted = (plain.states.logprobs_N - shift).split(plain.lengths)
        rows = [row.tolist() for row in shifted]
        rows[0][0] = None  # what VLLMGeneration makes of a NaN: that token is not corrected
        backend.generate = lambda prompts, images, n: (prompts, ids, [[[x] for x in row] for row in rows], None)
        trainer.collector.engine = vllm.VLLMEngine(
            backend, [trainer.collector.tokenizer.eos_token_id], trainer.config.generation.max_completion_length, None
        )
        return trainer.collector.collect(trainer.model, 0)

    def check(rollout, factor):
        expected = plain.advantages_N * factor
        expected[0] = plain.advantages_N[0]
        assert torch.allclose(rollout.advantages_N, expected, atol=1e-5)

    same = with_sampler(0.0)
    check(same, 1.0)
    assert same.extra_metrics["sampler/weight"] == pytest.approx(1.0, abs=1e-4)
    check(with_sampler(-0.6931472), 0.5)  # the sampler gave each token twice the trainer's probability
    capped = with_sampler(5.0)
    check(capped, 2.0)
    assert capped.extra_metrics["sampler/logprob_difference"] == pytest.approx(5.0, rel=0.05)
    trainer.train()


def test_top_p_trains_on_the_same_advantages_with_both_engines(tmp_path):
    settings = {"generation__top_p": 0.5, "anchor__schedule": "fixed", "generation__sampler_weight_cap": 2.0}
    trainer = make_trainer(tmp_path, **settings)
    here = trainer.collector.collect(trainer.model, 0)
    # by hand: each weight is the mass of the tokens kept, the policy's probability over the cut distribution's
    row, length = [*here.prompt_ids[0], *here.completions[0].token_ids], here.lengths[0]
    probs = trainer.model.policy(torch.tensor([row])).logits[0, -length - 1 : -1, :320].softmax(-1)
    sorted_probs, order = probs.sort(-1, descending=True)
    kept = sorted_probs * (sorted_probs.cumsum(-1) - sorted_probs < 0.5)
    drawn_from = (kept / kept.sum(-1, keepdim=True)).gather(1, order.argsort(-1))
    chosen = drawn_from[range(length), here.completions[0].token_ids]
    assert torch.allclose(here.states.sampler_logprobs_N[:length].exp(), chosen, atol=1e-5)
    assert here.extra_metrics["sampler/weight"] == pytest.approx(0.5, abs=0.02)

    backend = FakeBackend([completion.token_ids for completion in here.completions])
    told = [row.tolist() for row in here.states.sampler_logprobs_N.split(here.lengths)]
    ids = backend.completions
    backend.generate = lambda prompts, images, n: (prompts, ids, [[[x] for x in row] for row in told], None)
    trainer.collector.engine = vllm.VLLMEngine(backend, [trainer.collector.tokenizer.eos_token_id], 12, None)
    there = trainer.collector.collect(trainer.model, 0)
    assert torch.equal(there.advantages_N, here.advantages_N)


def test_the_options_are_arguments_of_the_installed_vllm_generation(tmp_path):
    from trl.generation.vllm_generation import VLLMGeneration

    options = vllm.backend_options(make_config(tmp_path, generation__stop=["\n\n"]), [1, 2])
    known = inspect.signature(VLLMGeneration.__init__).parameters
    assert set(options) | {"model", "accelerator", "processing_class", "server_base_url"} <= set(known)
    assert list(inspect.signature(VLLMGeneration.generate).parameters)[1:4] == ["prompts", "images", "num_generations"]
    assert options["generation_kwargs"] == {
        "stop_token_ids": [1, 2],
        "stop": ["\n\n"],
        "include_stop_str_in_output": True,
    }


def test_without_vllm_the_message_says_what_to_install(tmp_path):
    pytest.importorskip("trl")
    with pytest.raises(ConfigError, match="needs vllm: pip install"):
        make_trainer(tmp_path, generation__engine="vllm_colocate")
