"""What the doctor says that distillation needs: the cache's size is that on the disk, maps are as large as they are."""

from dataclasses import replace

import pytest
import torch

from rl_distill.distill.student import teacher_inner_states
from rl_distill.distill.teacher_cache import TeacherCache
from rl_distill.doctor.stages import ARRAYS_OF_MAPS, cache_disk_bytes, stage_bytes, stage_words
from rl_distill.maths.batching import token_batch
from tests.distill_case import make_case, make_config


@pytest.mark.parametrize(("cache", "top_k"), [("top_k", 32), ("top_k", 10_000), ("sampled", 12)])
def test_the_disk_of_a_cache_is_foretold(tmp_path, cache, top_k):
    config = make_config(tmp_path, cache=cache, top_k=top_k, num_prompts=16)
    _, teacher, tokenizer, examples = make_case(config)
    examples = [replace(e, completion_ids=(e.completion_ids * 20)[:50]) for e in examples]
    TeacherCache(tmp_path / "cache", teacher, tokenizer, config.distill).fill(examples)
    (shard,) = (tmp_path / "cache").glob("*.safetensors")
    foretold = cache_disk_bytes(config.distill, 50, len(tokenizer))
    assert foretold <= shard.stat().st_size < foretold + 4096  # the index of keys


def test_attention_maps_and_hidden_states_are_counted_as_they_are(tmp_path):
    config = make_config(tmp_path, inner__attention_map={0: 1, 1: 3}, inner__hidden_map="last", micro_batch_size=2)
    student, teacher, _, _ = make_case(config)
    found = stage_bytes(config.distill, student.config, teacher.model.config, 5, 7)
    batch = token_batch([[3] * 5] * 2, [[4] * 7] * 2, 0)
    _, inner = teacher_inner_states(teacher.model, batch, {3}, {1, 3})
    maps = sum(x.numel() * x.element_size() for x in inner.attention_BHLL.values())
    assert found["attention maps"] == ARRAYS_OF_MAPS * maps
    assert found["hidden states"] == 3 * 2 * 12 * 48 * torch.float32.itemsize
    plain = make_config(tmp_path)
    assert stage_bytes(plain.distill, student.config, teacher.model.config, 5, 7) == {}
    assert stage_words(plain, "distill", plain.distill, student.config, teacher.model.config) == ""
