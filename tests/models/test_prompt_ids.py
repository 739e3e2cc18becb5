"""A prompt becomes the same token ids wherever it is read: with the tokenizer's BOS once, whatever wrote it."""

from dataclasses import replace

import pytest
from tokenizers.processors import TemplateProcessing

from rl_distill.demo.tiny import make_tokenizer
from rl_distill.distill.sft import TrainingText, tokenized
from rl_distill.doctor import diagnosis
from rl_distill.evals.engine import Student, make_items
from rl_distill.evals.evaluation import evaluate_writer
from rl_distill.generation.sampling import Generated
from rl_distill.models.tokenizers import ids_before_text, prompt_ids
from rl_distill.ppo.rollout import RolloutCollector
from rl_distill.reward_model import data
from rl_distill.reward_model.settings import RewardModelConfig, RewardModelRunConfig
from rl_distill.run_setup import teacher_texts
from rl_distill.tasks.base import Task
from rl_distill.types import Finish, Problem
from tests.tiny_run import make_config, make_context

TEXTS = ["Tom has 3 pens.\nA: ", "def f(x):\n"]
BOS = "<s>"


def with_template(single: str, tokenizer):
    """The tokenizer with a post-processor as Llama's or Gemma's, which puts special tokens around each text."""
    special = [(name, tokenizer.convert_tokens_to_ids(name)) for name in (BOS, tokenizer.eos_token)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=special)
    return tokenizer


@pytest.fixture
def llama_like():
    tokenizer = make_tokenizer(TEXTS * 50, 300)
    tokenizer.add_special_tokens({"bos_token": BOS})
    tokenizer.chat_template = "<s>{% for m in messages %}{{ m.content }}{% endfor %}"
    return with_template("<s> $A", tokenizer)


def test_bos_comes_once_whether_the_text_has_it_or_not(llama_like):
    bos, bare = llama_like.bos_token_id, llama_like(TEXTS, add_special_tokens=False)["input_ids"]
    templated = llama_like.apply_chat_template([{"content": TEXTS[0]}], tokenize=False)
    assert templated == BOS + TEXTS[0]
    assert prompt_ids(llama_like, [*TEXTS, templated]) == [[bos, *bare[0]], [bos, *bare[1]], [bos, *bare[0]]]


def test_nothing_is_added_at_the_end_of_a_prompt(llama_like):
    bare = llama_like(TEXTS, add_special_tokens=False)["input_ids"]
    both = with_template("<s> $A <|endoftext|>", llama_like)
    assert prompt_ids(both, TEXTS) == [[both.bos_token_id, *ids] for ids in bare]
    end_only = with_template("$A <|endoftext|>", llama_like)
    assert prompt_ids(end_only, TEXTS) == bare


def test_a_tokenizer_without_bos_adds_nothing(tokenizer):
    assert ids_before_text(tokenizer) == []
    assert prompt_ids(tokenizer, TEXTS) == tokenizer(TEXTS)["input_ids"]
    assert prompt_ids(tokenizer, []) == []


class Reader:
    """A teacher that keeps the prompts it is given and says nothing."""

    fingerprint = "reader"

    def __init__(self, eos_token_id):
        self.eos_token_id, self.read = eos_token_id, []

    def generate(self, prompt_ids, sampling, batch_size=64, *, tasks=()):
        self.read += prompt_ids
        return [Generated([self.eos_token_id], Finish.STOP) for _ in prompt_ids]


def test_every_part_reads_a_prompt_as_the_same_ids(llama_like, tmp_path, monkeypatch):
    problems = [Problem("math", f"key-{i}", text, columns={"answer": "1"}) for i, text in enumerate(TEXTS)]
    config, eos = make_config(tmp_path), llama_like.eos_token_id
    context = replace(make_context(config), tokenizer=llama_like)
    read = {}

    collector = RolloutCollector(config, problems, llama_like, context.teacher, None, None, None)
    read["rollouts"] = collector.prompt_ids
    read["supervised stages"] = [
        [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100]
        for row in tokenized(llama_like, [TrainingText(text, " 1") for text in TEXTS])
    ]
    teacher = Reader(eos)
    teacher_texts(config, teacher, llama_like, problems, 1)
    read["teacher texts"] = teacher.read
    writer = Reader(eos)
    evaluate_writer(writer, llama_like, problems, config)
    read["evaluation"] = writer.read
    for protocol in ("base", "chat"):
        task = Task("t", lambda: problems, grade=lambda p, t: [], protocol=protocol)
        read[f"launch/eval.py, {protocol}"] = [item.token_ids for item in make_items(task, problems, llama_like, 1)]
    student = Reader(eos)
    monkeypatch.setattr(data, "generate", lambda model, prompts, sampling, **_: student.generate(prompts, sampling))
    one_each = RewardModelRunConfig(output_dir=str(tmp_path), reward_model=RewardModelConfig(num_student_outputs=1))
    data.student_texts(one_each, context, problems)
    read["reward model's data"] = student.read
    doctor = Reader(eos)
    monkeypatch.setattr(diagnosis, "complete", lambda student, ids, sampling: doctor.generate(ids, sampling))
    diagnosis.own_entropy(Student(context.student, llama_like, [eos]), TEXTS, 1)
    read["doctor"] = doctor.read

    expected = [[llama_like.bos_token_id, *ids] for ids in llama_like(TEXTS, add_special_tokens=False)["input_ids"]]
    assert read == dict.fromkeys(read, expected)
    assert len(read) == 8
