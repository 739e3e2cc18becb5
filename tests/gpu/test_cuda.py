"""On a CUDA device the maths, the sampler and a whole PPO step give what they give on a CPU."""

import json

import pytest
import torch

from rl_distill import pipeline
from rl_distill.generation import decoding, sampling
from rl_distill.generation.sampling import Sampling, TransformersEngine, generate
from rl_distill.maths.distillation import distillation_statistics, make_divergence
from rl_distill.maths.logprobs import token_statistics
from tests.distill_case import make_distiller
from tests.tiny_run import make_config, make_context

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("vocabulary", [1000, 151_936])
def test_token_statistics_and_their_gradients_equal_the_sums_in_float64(vocabulary):
    torch.manual_seed(0)
    hidden, weight = torch.randn(70, 32), torch.randn(vocabulary, 32) * 0.3
    teacher_hidden, teacher_weight = torch.randn(70, 48), torch.randn(vocabulary, 48) * 0.3
    targets = torch.randint(vocabulary, (70,))
    ours = [x.cuda().requires_grad_() for x in (hidden, weight)]
    stats = token_statistics(
        *ours, targets.cuda(), teacher_hidden_NE=teacher_hidden.cuda(), teacher_weight_VE=teacher_weight.cuda()
    )
    (stats.logprobs_N.sum() + 0.5 * stats.kl_N.sum() - 0.1 * stats.entropy_N.sum()).backward()
    theirs = [x.double().requires_grad_() for x in (hidden, weight)]
    logp = (theirs[0] @ theirs[1].T).log_softmax(-1)
    logq = (teacher_hidden.double() @ teacher_weight.double().T).log_softmax(-1)
    chosen, kl = logp.gather(1, targets[:, None])[:, 0], (logp.exp() * (logp - logq)).sum(-1)
    entropy = -(logp.exp() * logp).sum(-1)
    (chosen.sum() + 0.5 * kl.sum() - 0.1 * entropy.sum()).backward()
    for found, expected in zip((stats.logprobs_N, stats.kl_N, stats.entropy_N), (chosen, kl, entropy), strict=True):
        assert (found.cpu() - expected).norm() / expected.norm() < 1e-5
    for found, expected in zip(ours, theirs, strict=True):
        assert (found.grad.cpu() - expected.grad).norm() / expected.grad.norm() < 1e-5


@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl", "jsd", "tvd"])
def test_soft_targets_equal_those_of_the_cpu(kind):
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(70, 32), torch.randn(5000, 32) * 0.3, torch.randint(5000, (70,))
    teacher = {"teacher_hidden_NE": torch.randn(70, 48), "teacher_weight_VE": torch.randn(5000, 48) * 0.3}
    on_cpu = distillation_statistics(hidden, weight, targets, make_divergence(kind), temperature=2.0, **teacher)
    on_gpu = distillation_statistics(
        *(x.cuda() for x in (hidden, weight, targets)),
        make_divergence(kind),
        temperature=2.0,
        **{name: x.cuda() for name, x in teacher.items()},
    )
    assert torch.allclose(on_gpu.divergence_N.cpu(), on_cpu.divergence_N, rtol=1e-4, atol=1e-6)
    assert torch.allclose(on_gpu.cross_entropy_N.cpu(), on_cpu.cross_entropy_N, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sampled_tokens_equal_those_of_the_cpu(make_policy, tokenizer, temperature):
    policy = make_policy(3)
    prompts = [tokenizer(text)["input_ids"] for text in ("a", "Tom has 3 apples", "def f(x):", "and so on and on")]

    def tokens(model):
        completions = generate(
            model, prompts, Sampling(24, temperature), eos_token_ids=[tokenizer.eos_token_id],
            pad_token_id=tokenizer.pad_token_id, seeds=[1, 2, 3, 4], batch_size=4, vocab_size=len(tokenizer),
        )  # fmt: skip
        return [completion.token_ids for completion in completions]

    on_cpu = tokens(policy)
    assert tokens(policy.cuda()) == on_cpu


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_captured_step_gives_the_tokens_of_the_plain_one(make_policy, tokenizer, attention, monkeypatch):
    policy = make_policy(3).cuda()
    policy.set_attn_implementation(attention)
    assert decoding.can_be_graphed(policy)
    prompts = [tokenizer(text)["input_ids"] for text in ("a", "Tom has 3 apples", "def f(x):", "a", "and on and on")]
    made = []

    def graphed(model, max_new_tokens):
        made.append(decoding.GraphedDecoder(model, max_new_tokens))
        return made[-1]

    def tokens(make_decoder):
        monkeypatch.setattr(sampling, "make_decoder", make_decoder)
        completions = generate(
            policy, prompts * 4, Sampling(100), eos_token_ids=[tokenizer.eos_token_id, *range(60, 70)],
            pad_token_id=tokenizer.pad_token_id, seeds=range(20), batch_size=20, vocab_size=len(tokenizer),
        )  # fmt: skip
        return [completion.token_ids for completion in completions]

    assert tokens(graphed) == tokens(lambda model, _: decoding.PlainDecoder(model))
    assert made[0].capture
    assert len(made[0].tokens_S1) < 20  # rows ended, and the rest moved together


def test_weights_that_moved_are_those_that_a_captured_step_reads(make_policy, tokenizer):
    policy, engine = make_policy(3).cuda(), TransformersEngine(tokenizer, 4, is_copy=True)
    prompts = [tokenizer("Tom has 3 apples")["input_ids"]] * 2
    for _ in range(2):
        for completion in engine.generate(policy, prompts, Sampling(64), [1, 2]):
            ids = torch.tensor([prompts[0] + completion.token_ids]).cuda()
            with torch.no_grad():
                logits = policy(input_ids=ids).logits[0, len(prompts[0]) - 1 : -1, : len(tokenizer)].float()
            exact = logits.log_softmax(-1).gather(1, torch.tensor(completion.token_ids).cuda()[:, None])[:, 0]
            assert (exact.cpu() - torch.tensor(completion.logprobs)).abs().mean() < 0.05
        with torch.no_grad():
            for weight in policy.parameters():
                weight.mul_(1.2)


def test_a_run_on_the_gpu_follows_the_one_on_the_cpu(tmp_path, monkeypatch):
    def records(name, visible):
        with monkeypatch.context() as patch:
            if not visible:
                patch.setattr(torch.cuda, "is_available", lambda: False)
            config = make_config(tmp_path / name, ppo__num_steps=2, teacher__autocast="off")
            context = make_context(config)
            device = "cuda" if visible else "cpu"
            context.student.to(device)
            context.teacher.model.to(device)
            pipeline.train(config, pipeline.make_trainer(config, context))
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [record for record in map(json.loads, lines) if "loss" in record]

    on_gpu = records("gpu", True)
    assert len(on_gpu) == 2
    for record in on_gpu:
        assert all(record[name] == record[name] for name in ("loss", "kl", "entropy", "grad_norm"))
    first, expected = on_gpu[0], records("cpu", False)[0]
    for name in ("kl", "entropy", "reward", "loss/value", "loss/anchor"):
        assert first[name] == pytest.approx(expected[name], rel=2e-3, abs=1e-5), name


def test_bf16_training_stays_near_float32(tmp_path):
    def loss(name, bf16):
        config = make_config(tmp_path / name, ppo__num_steps=1, ppo__bf16=bf16, teacher__autocast="off")
        context = make_context(config)
        context.student.cuda()
        context.teacher.model.cuda()
        trainer = pipeline.make_trainer(config, context)
        pipeline.train(config, trainer)
        return next(r for r in trainer.state.log_history if "loss" in r)

    float32, bf16 = loss("float32", False), loss("bf16", True)
    assert bf16["kl"] == pytest.approx(float32["kl"], rel=1e-2)
    assert bf16["loss/anchor"] == pytest.approx(float32["loss/anchor"], rel=3e-2)


def test_distillation_trains_on_the_gpu(tmp_path):
    trainer = make_distiller(tmp_path, num_steps=20, alpha__start=0.0, inner__hidden_map="last")
    trainer.teacher.model.cuda()
    trainer.train()
    losses = [record["loss"] for record in trainer.state.log_history if "loss" in record]
    assert losses[-1] < losses[0]
