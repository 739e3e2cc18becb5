"""The convention on TRL's own trainer: our functions run inside GRPOTrainer, its functions inside the blend."""

import pytest

from reward_models import RewardBlend, RewardSpec
from reward_models.format import repetition
from reward_models.math_answers import math_answer
from reward_models.similarity import bleu, rouge_l
from reward_models.task_check import task_check

seen: list[dict] = []


def probe(prompts, completions, completion_ids, answer, trainer_state, log_extra, log_metric, **kwargs):
    """Written for GRPOTrainer: keeps what it was called with, scores by length."""
    seen.append({"prompts": prompts, "completions": completions, "completion_ids": completion_ids, "answer": answer})
    log_extra("length", [len(c) for c in completions])
    log_metric("mean_length", sum(map(len, completions)) / len(completions))
    return [
        None if a is None else len(c) / 10 + trainer_state.global_step for c, a in zip(completions, answer, strict=True)
    ]


@pytest.mark.slow
def test_grpo_trainer_runs_our_functions_and_the_blend_runs_its(tmp_path):
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
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        pad_token_id=0, eos_token_id=1, bos_token_id=1,
    )  # fmt: skip
    rows = [
        {
            "prompt": "the answer is",
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
    functions = [probe, math_answer, bleu, rouge_l, task_check, repetition]
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
    assert scores.columns["length"] == [len(text) for text in call["completions"]]
