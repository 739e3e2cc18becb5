"""The teacher's distribution from disk: equal to the live one, unbiased where drawn, whole after a crash."""

import math

import pytest
import torch

from rl_distill import student_stages
from rl_distill.config import ConfigError
from rl_distill.distill.stage import check_distillation, wrap_student
from rl_distill.distill.teacher_cache import CachedRow, CacheShards, TeacherCache, bytes_per_token, draw
from rl_distill.distill.trainer import DistillationTrainer
from rl_distill.maths.distillation import forward_kl, sampled_forward_kl, top_k_divergence
from tests import test_student_stages as stages
from tests.distill_case import make_case, make_config


def trained(folder, **settings):
    """(weights after four steps, the last logged divergence, the cache)"""
    config = make_config(folder, learning_rate=1e-3, **settings)
    student, teacher, tokenizer, examples = make_case(config)
    model = wrap_student(config.distill, student, teacher, len(tokenizer))
    cache = None
    if config.distill.cache != "none":
        cache = TeacherCache(folder / "cache", teacher, tokenizer, config.distill)
        cache.fill(examples)
        teacher.score = lambda *_, **__: pytest.fail("the teacher was asked again")
    trainer = DistillationTrainer(model, config, config.distill, examples, teacher, tokenizer, folder, cache=cache)
    trainer.train()
    return dict(student.named_parameters()), cache, examples


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd"])
def test_a_run_from_a_cache_of_the_whole_vocabulary_is_the_live_run(tmp_path, divergence):
    settings = {"temperature__start": 2.0, "divergence": divergence, "optimizer": "adamw"}
    live, *_ = trained(tmp_path / "live", **settings)
    cached, *_ = trained(tmp_path / "cached", cache="top_k", top_k=100_000, **settings)
    for name, weight in live.items():
        assert torch.allclose(weight, cached[name], atol=2e-5), (
            name
        )  # Adam divides by a gradient's size, so rounding counts; tvd's sign would flip by it


def whole_distributions(folder, temperature=1.0, **settings):
    """(config, student's and teacher's log-probabilities along two examples, N x V, and the parts)"""
    config = make_config(folder, temperature__start=temperature, **settings)
    student, teacher, tokenizer, examples = make_case(config)
    with torch.no_grad():
        pairs = []
        for model in (student, teacher.model):
            rows = []
            for e in examples[:2]:
                logits = model(torch.tensor([e.prompt_ids + e.completion_ids])).logits[0]
                rows.append((logits[len(e.prompt_ids) - 1 : -1, : len(tokenizer)] / temperature).log_softmax(-1))
            pairs.append(torch.cat(rows))
    return config, pairs[0], pairs[1], teacher, tokenizer, examples[:2]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_cached_loss_of_all_ids_is_the_exact_one_and_of_some_within_what_the_rest_holds(tmp_path, temperature):
    _config, logp, logq, teacher, tokenizer, examples = whole_distributions(tmp_path, temperature)
    exact = forward_kl(logp, logq)
    rows = [e.prompt_ids for e in examples], [e.completion_ids for e in examples]
    errors = []
    for top_k in (32, 128, len(tokenizer)):
        settings = make_config(tmp_path, cache="top_k", top_k=top_k, temperature__start=temperature).distill
        cache = TeacherCache(tmp_path / "cache", teacher, tokenizer, settings)
        cache.fill(examples)
        found = cache.targets(*rows)
        chosen = logp.gather(1, found.top_ids_NK)
        whole = top_k == len(tokenizer)
        loss = forward_kl(chosen, found.top_logprobs_NK) if whole else None
        loss = top_k_divergence(forward_kl, chosen, found.top_logprobs_NK) if loss is None else loss
        errors.append((exact - loss).abs().max().item())
        assert (loss <= exact + 1e-5).all()  # merging outcomes loses information
    assert errors[2] < 1e-6
    assert errors[0] > errors[1] > errors[2]


def test_the_drawn_ids_leave_the_kl_and_its_gradient_unbiased(tmp_path):
    _, logp, logq, teacher, tokenizer, examples = whole_distributions(tmp_path)
    hidden = teacher.score([e.prompt_ids for e in examples], [e.completion_ids for e in examples]).hidden_NE[:6]
    num = 20_000
    row = draw(hidden, teacher.lm_head_weight_VE[: len(tokenizer)], 1.0, num, "1f" * 20)
    entropy = -(logq[:6].exp() * logq[:6]).sum(-1)
    assert torch.allclose(row.values, entropy, atol=1e-5)
    student = logp[:6].gather(1, row.ids_NK)
    errors = (sampled_forward_kl(student, row.values) - forward_kl(logp[:6], logq[:6])).abs()
    assert (errors < 3 * student.std(dim=1) / math.sqrt(num)).all()
    # the gradient for the student's logits is p - q; that of the estimate is p - (frequency of the drawn ids)
    counts = torch.zeros_like(logq[:6]).scatter_add_(1, row.ids_NK, torch.ones_like(student)) / num
    spread = (logq[:6].exp() * (1 - logq[:6].exp()) / num).sqrt()
    assert ((counts - logq[:6].exp()).abs() < 5 * spread + 1e-9).all()  # 1,900 of them: five standard errors


def test_a_sampled_cache_trains_and_repeats_itself(tmp_path):
    first, _cache, examples = trained(tmp_path, cache="sampled", top_k=12)
    again, *_ = trained(tmp_path, cache="sampled", top_k=12)
    assert all(torch.equal(first[name], again[name]) for name in first)
    tokens = sum(len(e.completion_ids) for e in examples)
    (shard,) = (tmp_path / "cache").glob("*.safetensors")
    assert shard.stat().st_size == pytest.approx(tokens * bytes_per_token("sampled", 12), rel=0.2)


def test_a_crash_while_writing_leaves_no_shard_and_a_torn_one_is_made_anew(tmp_path, monkeypatch):
    shards = CacheShards(tmp_path)
    row = CachedRow(torch.tensor([[1, 2]]), torch.tensor([[-0.5, -1.0]]))
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            shards.put(["a"], [row])
    shards.look()
    assert "a" not in shards
    shards.put(["a"], [row])
    (path,) = tmp_path.glob("[0-9]*.safetensors")
    path.write_bytes(path.read_bytes()[:-4])
    torn = CacheShards(tmp_path)
    torn.look()
    assert "a" not in torn
    torn.put(["a", "b"], [row, row])
    torn.look()
    assert torch.equal(torn.get("b").ids_NK, row.ids_NK)


def test_another_teacher_temperature_number_or_text_is_another_entry(tmp_path):
    config = make_config(tmp_path, cache="top_k")
    _, teacher, tokenizer, _ = make_case(config)

    def key(prompt=(1, 2), completion=(3,), **settings):
        chosen = make_config(tmp_path, **{"cache": "top_k"} | settings).distill
        return TeacherCache(tmp_path / "cache", teacher, tokenizer, chosen).key(prompt, completion)

    keys = [key(), key((1,), (2, 3)), key(top_k=8), key(temperature__start=2.0), key(cache="sampled")]
    teacher.fingerprint = "another"
    assert len({*keys, key()}) == 6


def test_a_stage_asks_the_teacher_once_for_two_students(tmp_path):
    config = stages.make_config(tmp_path, distill__cache="top_k", distill__top_k=16, cache_dir=str(tmp_path / "c"))
    stages.distilled(config)
    other = stages.make_config(
        tmp_path, distill__cache="top_k", distill__top_k=16, distill__learning_rate=1e-4, cache_dir=str(tmp_path / "c")
    )
    context = stages.make_context(other)
    score = context.teacher.score
    asked = []
    context.teacher.score = lambda *args, **kw: asked.append(kw.get("top_k", 0)) or score(*args, **kw)
    student_stages.prepare_student(other, context, stages.Stages(quiet=True))
    assert set(asked) == {0}  # the held-out numbers ask it, the training does not


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha__start": 1.0}, "nothing to keep at alpha 1"),
        ({"on_policy__start": 0.5}, "no texts that the student samples"),
        ({"temperature__start": 2.0, "temperature__end": 0.5}, "made at one temperature"),
        ({"inner__hidden_map": "last"}, "neither inner states"),
        ({"cache": "sampled", "divergence": "jsd"}, "the forward KL alone"),
    ],
)
def test_what_no_cache_holds_is_refused_in_one_line(tmp_path, settings, message):
    config = make_config(tmp_path, **{"cache": "top_k"} | settings)
    with pytest.raises(ConfigError, match=message):
        check_distillation(config, config.distill)


def test_no_room_on_the_disk_is_told_before_the_teacher_works(tmp_path, monkeypatch):
    config = make_config(tmp_path, cache="top_k")
    _, teacher, tokenizer, examples = make_case(config)
    cache = TeacherCache(tmp_path / "cache", teacher, tokenizer, config.distill)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(ConfigError, match=r"distill.cache: [\d,]+ tokens with 64 ids each need .* lower distill.top_k"):
        cache.fill(examples)
    assert teacher.tokens_scored == 0
