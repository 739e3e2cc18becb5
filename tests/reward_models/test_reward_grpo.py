"""The convention on TRL's own trainer: our functions run inside GRPOTrainer, its functions inside the blend."""

import pytest

from reward_models import RewardBlend, RewardSpec, Unscored
from reward_models.base import text_of
from reward_models.format import repetition, think_format
from reward_models.math_answers import math_answer
from reward_models.similarity import bleu, rouge_l
from reward_models.task_check import task_check

seen: list[dict] = []
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def outage(completions, **kwargs):
    """Could score nothing at all."""
    return [Unscored("outage")] * len(completions)


def probe(prompts, completions, completion_ids, answer, trainer_state, log_extra, log_metric, **kwargs):
    """Written for GRPOTrainer: keeps what it was called with, scores by length."""
    seen.append({"prompts": prompts, "completions": completions, "completion_ids": completion_ids, "answer": answer})
    lengths = [len(text_of(completion)) for completion in completions]
    log_extra("length", lengths)
    log_metric("mean_length", sum(lengths) / len(lengths))
    return [
        None if a is None else length / 10 + trainer_state.global_step
        for length, a in zip(lengths, answer, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["the answer is", [{"role": "user", "content": "the answer is"}]])
def test_grpo_trainer_runs_our_functions_and_the_blend_runs_its(tmp_path, prompt):
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerState
    from trl import GRPOConfig, GRPOTrainer

    torch.manual_seed(0)
    words = ["<pad>", "<eos>", "<unk>", "the", "answer", "is", *map(str, range(10))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    tokenizer.chat_template = CHAT_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        pad_token_id=0, eos_token_id=1, bos_token_id=1,
    )  # fmt: skip
    rows = [
        {
            "prompt": prompt,
            "answer": "7",
            "teacher_output": "the answer is 7",
            "test": None,
            "entry_point": None,
        }
    ]
    arguments = GRPOConfig(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=4, num_generations=4, use_cpu=True,
        max_completion_length=4, report_to=[], bf16=False, logging_steps=1, gradient_checkpointing=False,
    )  # fmt: skip
    seen.clear()
    functions = [probe, math_answer, bleu, rouge_l, task_check, repetition, think_format, outage]
    trainer = GRPOTrainer(
        LlamaForCausalLM(config), functions, args=arguments, train_dataset=Dataset.from_list(rows * 4),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    logged = next(entry for entry in trainer.state.log_history if "rewards/probe/mean" in entry)
    assert all(f"rewards/{function.__name__}/mean" in logged for function in functions)

    call = seen[0]
    specs = [RewardSpec(f"{__name__}:probe"), RewardSpec("bleu", 0.5), RewardSpec("math_answer", 0.0)]
    with RewardBlend(specs) as blend:
        scores = blend.score(
            prompts=call["prompts"], completions=call["completions"], completion_ids=call["completion_ids"],
            columns={"answer": call["answer"], "teacher_output": ["the answer is 7"] * 4}, trainer_state=TrainerState(),
        )  # fmt: skip
    assert scores.metrics["rewards/probe/mean"] == pytest.approx(logged["rewards/probe/mean"], abs=1e-5)
    assert scores.metrics["rewards/bleu/mean"] == pytest.approx(logged["rewards/bleu/mean"], abs=1e-5)
    assert scores.metrics["mean_length"] == pytest.approx(logged["mean_length"], abs=1e-5)
    assert scores.columns["length"] == [len(text_of(completion)) for completion in call["completions"]]
    assert seen[-1] == call
    assert isinstance(call["completions"][0], type(prompt))
