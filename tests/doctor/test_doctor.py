"""The doctor: each trouble is found and named with a cure, and a healthy pair is left in peace; memory by hand."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Qwen2Config

from rl_distill.cli import main
from rl_distill.demo.tiny import make_tokenizer
from rl_distill.doctor import diagnosis, memory
from rl_distill.evals.engine import Student
from rl_distill.models.loading import load
from rl_distill.tasks.base import Graded, Task
from rl_distill.types import Problem

PLAN = memory.Plan(prompt_length=64, completion_length=48, micro_batch_size=2, generation_batch_size=4)


def by_what(findings):
    return {finding.what: finding for finding in findings}


@pytest.fixture
def folders(tmp_path, make_policy, tokenizer):
    """A student and a teacher that are sure of themselves: their weights are scaled up from the random start."""
    for name, seed in (("student", 0), ("teacher", 1)):
        model = make_policy(seed)
        with torch.no_grad():
            model.model.norm.weight.mul_(20.0)
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    rows = [{"prompt": f"Q: {i} and {i}?\nA:", "answer": str(2 * i)} for i in range(4)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_healthy_pair_has_nothing_to_mend(folders, capsys):
    words = ["--student", "student", "--teacher", "teacher", "--data", "data.jsonl"]
    words = [word if word.startswith("--") else str(folders / word) for word in words]
    assert main(["doctor", *words, "--max_prompt_length", "64", "--max_completion_length", "48"]) == 0
    text = capsys.readouterr().out
    for line in (
        "tokenizers: one map of",
        "gold answers: all 4 grade",
        "student's weights: all",
        "memory of a student's GPU",
    ):
        assert line in text
    assert "BAD" not in text


def test_other_tokenizers_are_named_with_the_first_difference(tokenizer):
    other = make_tokenizer(["quite another text with other merges"], 300)
    found = by_what(diagnosis.tokenizer_findings(tokenizer, other))["tokenizers"]
    assert found.level == "bad"
    assert "token" in found.detail
    assert "one model family" in found.do


def test_a_missing_chat_template_is_said(tokenizer):
    import copy

    chatty = copy.copy(tokenizer)
    chatty.chat_template = "{{ messages }}"
    assert by_what(diagnosis.tokenizer_findings(chatty, tokenizer))["chat template"].detail == "the teacher has none"
    assert "chat template" not in by_what(diagnosis.tokenizer_findings(chatty, chatty))


def test_padded_vocabularies_are_fine_and_small_ones_are_not(tokenizer):
    pair = {"student": tokenizer, "teacher": tokenizer}
    padded = {"student": Qwen2Config(vocab_size=384), "teacher": Qwen2Config(vocab_size=512)}
    found = by_what(diagnosis.vocabulary_findings(pair, padded))["vocabulary"]
    assert (found.level, "384 rows in the student, 512 in the teacher" in found.detail) == ("ok", True)
    small = padded | {"student": Qwen2Config(vocab_size=300)}
    found = by_what(diagnosis.vocabulary_findings(pair, small))["vocabulary"]
    assert found.level == "bad"
    assert "300 embedding rows" in found.detail


def test_weights_that_were_not_in_the_checkpoint_are_found(folders):
    from safetensors.torch import load_file, save_file

    path = folders / "student" / "model.safetensors"
    weights = load_file(path)
    lost = "model.layers.1.mlp.up_proj.weight"
    save_file({name: tensor for name, tensor in weights.items() if name != lost}, path, metadata={"format": "pt"})
    finding = diagnosis.weight_findings("student", str(folders / "student"))[0][0]
    assert finding.level == "bad"
    assert lost in finding.detail
    weights[lost][0, 0] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    finding = diagnosis.weight_findings("student", str(folders / "student"))[0][0]
    assert finding.detail == f"{lost} holds NaN or infinity"


def test_entropy_tells_untrained_sure_and_lost_models(make_policy, tokenizer):
    texts = ["Q: one\nA:", "Q: two\nA:"]
    untrained = make_policy(0)
    found = diagnosis.entropy_findings("student", Student.of(untrained, tokenizer), texts, 8)[0]
    assert (found.level, "look untrained" in found.do) == ("bad", True)

    def scaled(factor):
        model = make_policy(0)
        with torch.no_grad():
            model.model.norm.weight.mul_(factor)
        return diagnosis.entropy_findings("teacher", Student.of(model, tokenizer), texts, 8)[0]

    assert "very sure of every token" in scaled(100_000.0).detail
    assert "does not know what to say" in scaled(12.0).detail
    assert scaled(20.0).level == "ok"


def test_gold_answers_that_grade_as_wrong_are_counted():
    grade = lambda ps, ts: [Graded({"accuracy": float(t == "yes")}) for t in ts]  # noqa: E731
    problems = [Problem("t", "k1", "p", "yes"), Problem("t", "k2", "p", "no")]
    found = diagnosis.gold_findings(Task("t", lambda: problems, grade), problems)[0]
    assert (found.level, found.detail) == ("bad", "1 of 2 do not grade as correct; the first: k2 'no'")
    plain = Task("data", lambda: [], grade)
    found = diagnosis.gold_findings(plain, [Problem("data", "k", "p", columns={"answer": "4"})])[0]
    assert found.level == "ok"
    assert diagnosis.gold_findings(plain, [Problem("data", "k", "p")])[0].level == "warn"


def test_prompts_over_the_limits_are_counted(folders, tokenizer):
    problems = [Problem("data", str(i), "a b c d e f " * i) for i in (1, 2, 100)]
    task = Task("data", lambda: problems, lambda p, t: [])
    case = diagnosis.Case(str(folders / "student"), "", "", plan=memory.Plan(prompt_length=40, completion_length=48))
    found = by_what(diagnosis.length_findings(task, problems, tokenizer, case))
    assert "1 exceed the planned 40" in found["prompt lengths"].detail
    assert "the student has 512 positions" in found["positions"].detail


def test_zero_shards_what_the_paper_says():
    # Rajbhandari et al. 2020, figure 1: 7.5 B parameters on 64 GPUs: 120, 31.4, 16.6 and 1.9 GB
    for stage, gigabytes in ((0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)):
        plan = memory.Plan(num_gpus=64, zero_stage=stage)  # without ZeRO float32, the same 16 bytes per weight
        shape = memory.Shape(7_500_000_000, 4096, 16384, 32, 4096, 50_000)
        assert sum(memory.training_bytes(shape, plan).values()) / 1e9 == pytest.approx(gigabytes, abs=0.05)


def test_parameters_of_qwen_are_counted_without_loading_it():
    config = Qwen2Config(
        vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    shape = memory.Shape.of(config)
    assert shape.parameters == 494_032_768
    assert shape.num_kv == 128


def test_the_teacher_costs_where_it_lives():
    student, teacher = (
        memory.Shape(10**9, 2048, 8192, 24, 512, 150_000),
        memory.Shape(7 * 10**9, 4096, 16384, 32, 1024, 150_000),
    )
    shared = memory.student_gpu(student, teacher, memory.Plan(num_gpus=4))
    zero3 = memory.student_gpu(student, teacher, memory.Plan(num_gpus=4, zero_stage=3))
    split = memory.student_gpu(student, teacher, memory.Plan(num_gpus=4, placement="dedicated"))
    server = memory.student_gpu(student, teacher, memory.Plan(num_gpus=4, placement="remote"))
    assert shared["teacher"] == zero3["teacher"] == 14e9
    assert (zero3["weights"], zero3["gathered"]) == (0.5e9, 2e9)  # in bf16; sampling gathers the student
    assert split["teacher's head"] == 150_000 * 4096 * 2
    assert not [name for name in server if "teacher" in name]
    assert memory.teacher_gpu(teacher, memory.Plan(placement="dedicated", teacher_gpus=2))["weights"] == 14e9
    # one key and one value of 512 numbers in 24 layers, for 64 answers of 1,024 tokens: as wide as the weights
    assert (shared["KV cache"], zero3["KV cache"]) == (64 * 1024 * 24 * 2 * 512 * 4, 64 * 1024 * 24 * 2 * 512 * 2)
    copied = memory.student_gpu(student, teacher, memory.Plan(num_gpus=4, sampling_copy=True))
    assert copied["sampling copy"] == 2e9
    assert copied["KV cache"] == zero3["KV cache"]


@pytest.mark.parametrize("kind", ["float32", "autocast", "bfloat16"])
@pytest.mark.parametrize("shape", [(256, 688, 4, 2), (448, 2432, 7, 1)])
def test_activations_are_the_tensors_that_autograd_saves(kind, shape):
    """The difference of four layers to two, so that embedding and last norm do not count."""
    hidden, intermediate, heads, kv_heads = shape
    saved, expected = [], []
    for layers in (2, 4):
        config = Qwen2Config(
            vocab_size=300, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=kv_heads,
        )  # fmt: skip
        model = (
            AutoModelForCausalLM.from_config(config).train().to(torch.bfloat16 if kind == "bfloat16" else torch.float32)
        )
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        storages = {}

        def keep(x, weights=weights, storages=storages):
            if x.untyped_storage().data_ptr() not in weights:
                storages[x.untyped_storage().data_ptr()] = x.untyped_storage()  # held, so that no address comes twice
            return x

        autocast = torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast")
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), autocast:
            model.model(input_ids=torch.ones(2, 64, dtype=torch.long), use_cache=False)
        plan = memory.Plan(
            zero_stage=1 if kind == "bfloat16" else 0, bf16=kind != "float32",
            micro_batch_size=2, prompt_length=32, completion_length=32,
        )  # fmt: skip
        saved.append(sum(storage.nbytes() for storage in storages.values()))
        expected.append(memory.activation_bytes(memory.Shape.of(config), plan))
    assert expected[1] - expected[0] == pytest.approx(saved[1] - saved[0], rel=0.02)


def test_quantized_weights_and_adapters_are_counted():
    config = Qwen2Config(
        vocab_size=1000, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    shape, model = memory.Shape.of(config), AutoModelForCausalLM.from_config(config)
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear"))
    assert shape.lora_parameters(8) == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    linear = shape.parameters - 2 * 1000 * 64
    assert shape.weight_bytes("bfloat16", None) == 2 * shape.parameters
    assert shape.weight_bytes("bfloat16", "8bit") == 2 * 2 * 1000 * 64 + linear
    assert shape.weight_bytes("bfloat16", "4bit") == pytest.approx(2 * 2 * 1000 * 64 + 0.516 * linear, rel=1e-3)
    whole, quantized = (
        memory.student_gpu(shape, shape, memory.Plan(student_dtype="bfloat16", lora_r=8, student_quantization=kind))
        for kind in (None, "4bit")
    )
    assert whole["optimizer"] == quantized["optimizer"] == 8 * shape.lora_parameters(8)
    assert whole["gradients"] == 4 * shape.lora_parameters(8)
    assert whole["weights"] - quantized["weights"] == 2 * shape.parameters - shape.weight_bytes("bfloat16", "4bit")


@pytest.mark.parametrize("kind", ["8bit", "4bit"])
def test_quantized_weights_take_what_bitsandbytes_holds(kind, tmp_path, tokenizer):
    pytest.importorskip("bitsandbytes")
    config = Qwen2Config(
        vocab_size=5000, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, _ = load(tmp_path, "bfloat16", kind)
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    for weight in model.parameters():
        if getattr(weight, "SCB", None) is not None:
            held += 4 * weight.SCB.numel()
        if getattr(weight, "quant_state", None) is not None:
            held += weight.quant_state.absmax.nbytes + weight.quant_state.state2.absmax.nbytes
    assert memory.Shape.of(config).weight_bytes("bfloat16", kind) == pytest.approx(held, rel=0.005)


def test_what_does_not_fit_comes_with_advice():
    plan = memory.Plan(num_gpus=4, micro_batch_size=8)
    assert memory.advice(50.0, 80.0, plan) == ""
    words = memory.advice(100.0, 80.0, plan)
    assert words.startswith("set student.gradient_checkpointing: true; lower ppo.micro_batch_size (now 8")
    assert "use ZeRO stage 2" in words
    last = memory.Plan(
        gradient_checkpointing=True, micro_batch_size=1, generation_batch_size=8, placement="dedicated", lora_r=1
    )
    assert memory.advice(100.0, 80.0, last) == "use more or larger GPUs"
