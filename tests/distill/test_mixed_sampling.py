"""Samples from a mixture of teacher and student: the two at its ends, the mixture's frequencies between."""

import torch

from rl_distill.distill.mixed_sampling import generate_mixed
from rl_distill.generation.sampling import Sampling, generate
from tests.distill_case import make_case, make_config, make_distiller


def case(tmp_path):
    student, teacher, tokenizer, examples = make_case(make_config(tmp_path))
    return student, teacher, tokenizer, [example.prompt_ids for example in examples[:6]]


def test_the_ends_of_the_mixture_are_student_and_teacher(tmp_path):
    student, teacher, tokenizer, prompts = case(tmp_path)
    sampling, seeds = Sampling(12, 0.8), list(range(6))
    known = {"eos_token_ids": [tokenizer.eos_token_id], "pad_token_id": tokenizer.pad_token_id, "seeds": seeds}
    for share, model in ((0.0, student), (1.0, teacher.model)):
        alone = generate(model, prompts, sampling, vocab_size=len(tokenizer), **known)
        mixed = generate_mixed(student, teacher, share, tokenizer, prompts, sampling, seeds)
        assert [item.token_ids for item in mixed] == [item.token_ids for item in alone]


def test_tokens_come_as_often_as_the_mixture_says(tmp_path):
    student, teacher, tokenizer, prompts = case(tmp_path)
    num, share, temperature = 4000, 0.3, 1.5
    found = generate_mixed(
        student, teacher, share, tokenizer, [prompts[0]] * num, Sampling(1, temperature), range(num), batch_size=num
    )
    counts = torch.bincount(torch.tensor([item.token_ids[0] for item in found]), minlength=len(tokenizer)) / num
    with torch.no_grad():
        p, q = (m(torch.tensor([prompts[0]])).logits[0, -1] for m in (student, teacher.model))
    expected = (1 - share) * (p / temperature).softmax(-1) + share * (q / temperature).softmax(-1)
    top = expected.topk(10).indices
    error = (expected * (1 - expected) / num).sqrt()
    assert ((counts - expected).abs()[top] < 4 * error[top]).all()


def test_a_stage_trains_on_mixed_samples_and_counts_what_the_teacher_read(tmp_path):
    settings = {"num_steps": 2, "on_policy__start": 1.0, "teacher_mix__start": 0.2, "alpha__start": 0.0}
    trainer = make_distiller(tmp_path, **settings)
    trainer.train()
    alone = make_distiller(tmp_path, **settings | {"teacher_mix__start": 0.0})
    alone.train()
    assert trainer.teacher.tokens_scored > 1.5 * alone.teacher.tokens_scored
